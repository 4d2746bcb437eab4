"""Jobs as RayJobs of KubeRay."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from k8s import leases, preflight, rayjob, record, state
from k8s.client import Api, Object
from k8s.errors import Misuse, Refusal, Unreachable
from k8s.job import Job, running, unknown
from k8s.settings import Settings
from k8s.state import State


class RayJobs:
    """``seen``: jobs this process has seen: one that is no longer there was deleted, and is not unknown."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.api = Api(settings.context, settings.namespace)
        self.seen: set[str] = set()
        self.where = f"namespace {self.api.namespace} of {self.api.host}"

    @property
    def answered(self) -> bool:
        return self.api.answered

    def start(self, job: Job) -> bool:
        """Whether it was created; else it was there.

        One that is lost, or that ``again`` asks for, goes first.  Errors: ``Misuse`` with nothing left on the cluster.
        """
        try:
            there = self._get(job.name)
            if there is None:
                self._create(job)
            else:
                self._same(there, job)
                self._cleared(there)
                leases.ensure(self.api, there)
        except Refusal as error:
            raise self._refused(error, job.name) from error
        self.seen.add(job.name)
        return there is None

    def _create(self, job: Job) -> None:
        body = rayjob.rayjob(self.settings, job)
        body["metadata"]["namespace"] = self.api.namespace
        preflight.check(self.api, self.settings, body)
        self._alone(job)
        self._prune()
        try:
            there = self.api.create(body)
        except Refusal as error:
            if error.status == 409:  # another submitter was first
                raise Unreachable(f"{job.name} is being submitted by another") from error
            raise Misuse(f"the cluster refuses the job ({error})") from error
        try:
            leases.ensure(self.api, there)
            self._alone(job, there)  # of two at once with another image, each saw nobody before
        except (Misuse, Refusal):
            self._remove(there)
            raise

    def state(self, name: str) -> State:
        """Errors: ``Misuse`` for a job that never was."""
        there = self._get(name)
        if there is None:
            if name in self.seen:
                return state.ended(name, state.STOPPED, "Deleted", "it was deleted before its end was seen")
            raise unknown(name, self.where)
        self.seen.add(name)
        try:
            return self._read(there)
        except Refusal as error:
            raise self._refused(error, name) from error

    def jobs(self) -> list[State]:
        try:
            found = self.api.list("RayJob", rayjob.MANAGED)
            return [self._read(each) for each in sorted(found, key=_created, reverse=True)]
        except Refusal as error:
            raise self._refused(error) from error

    def cancel(self, name: str) -> None:
        """Delete it, and with it its cluster and its lease."""
        there = self._get(name)
        if there is not None:
            self.seen.add(name)
            try:
                self._remove(there)
            except Refusal as error:
                raise self._refused(error) from error
        elif name not in self.seen:
            raise unknown(name, self.where)

    def wait(self, name: str, seconds: float) -> None:
        self.api.wait("RayJob", name, seconds)

    def logs(self, name: str, since: str | None) -> Iterator[tuple[str, str, str]]:
        """``(pod, time, line)`` of the newest submitter, which follows the command's output, until the stream ends."""
        pods = [pod for pod in self.api.list("Pod", {"job-name": name}) if _phase(pod) != "Pending"]
        if not pods:
            return
        pod = max(pods, key=_created)["metadata"]["name"]
        for line in self.api.log(pod, since):
            time, _, text = line.partition(" ")
            yield pod, time, text

    def _get(self, name: str) -> Object | None:
        try:
            return self.api.get("RayJob", name)
        except Refusal as error:
            raise self._refused(error, name) from error

    def _refused(self, error: Refusal, name: str = "") -> Exception:
        if name in self.seen:  # a server that has just come back knows no rights yet
            return Unreachable(f"{self.api.host} answers {error.status} ({error})", error.status)
        return Misuse(
            f"namespace={self.api.namespace}: the cluster refuses what a job needs ({error}); ask for the role "
            "holdfast-submit in it, or give another namespace"
        )

    def _read(self, there: Object) -> State:
        name, status = there["metadata"]["name"], there.get("status") or {}
        quiet = status.get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed")
        pods: list[Object] = []
        workloads: list[Object] = []
        events: list[Object] = []
        if not quiet and status.get("jobStatus") != "RUNNING":
            if cluster := status.get("rayClusterName"):
                pods = self.api.list("Pod", {"ray.io/cluster": cluster})
            pods += self.api.list("Pod", {"job-name": name})
            events = [] if pods else self._warnings(name, cluster)
            if rayjob.QUEUE in (there["metadata"].get("labels") or {}):
                workloads = self._workloads(there)
        return state.read(there, pods, workloads, events, record.read(self.api.get("Lease", name)))

    def _warnings(self, *names: str | None) -> list[Object]:
        """Of the job and its cluster, as long as there are no pods to ask."""
        fields = [f"involvedObject.name={name},type=Warning" for name in names if name]
        return [event for each in fields for event in self.api.list("Event", fields=each)]

    def _workloads(self, there: Object) -> list[Object]:
        try:
            return self.api.list("Workload", {"kueue.x-k8s.io/job-uid": there["metadata"]["uid"]})
        except Refusal:  # no Kueue, or it may not be looked at: the reason stays unknown
            return []

    def _same(self, there: Object, job: Job) -> None:
        annotations = there["metadata"].get("annotations") or {}
        if annotations.get(rayjob.INPUTS) != job.inputs:
            raise Misuse(
                f"name={job.name} is another job's ({annotations.get(rayjob.LINE, 'not one of ours')}); give another, "
                "or leave name out"
            )

    def _alone(self, job: Job, ours: Object | None = None) -> None:
        """Two trainings of one config would share a run and its checkpoints.  ``ours``: the older one stays."""
        if not job.writes:
            return
        for each in self.api.list("RayJob", {rayjob.COMMAND: job.digest}):
            other = each["metadata"]["name"]
            older = ours is None or _age(each) < _age(ours)
            if other != job.name and older and self._read(each).code is None:
                raise running(other)

    def _prune(self) -> None:
        """Delete jobs of ours that ended long ago, as KubeRay keeps them for ever."""
        limit = datetime.now(UTC) - timedelta(minutes=self.settings.keep_minutes)
        for each in self.api.list("RayJob", rayjob.MANAGED):
            ended = (each.get("status") or {}).get("endTime")
            if ended and datetime.fromisoformat(ended) < limit:
                self._remove(each)

    def _cleared(self, there: Object) -> None:
        """Errors: ``Unreachable``, which is tried again, while one goes that must."""
        found = self._read(there)
        going = f"{found.name} of before is being deleted"
        if there["metadata"].get("deletionTimestamp"):
            raise Unreachable(going)
        if found.code == state.LOST or (found.code is not None and self.settings.again):
            self._remove(there)
            raise Unreachable(going)

    def _remove(self, there: Object) -> None:
        name = there["metadata"]["name"]
        self.api.delete("RayJob", name, there["metadata"]["uid"])
        leases.drop(self.api, name)


def _created(item: Object) -> str:
    return str(item["metadata"].get("creationTimestamp") or "")


def _age(item: Object) -> tuple[str, str]:
    """The smaller, the older."""
    return _created(item), str(item["metadata"]["name"])


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")

"""Jobs as RayJobs of KubeRay."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from k8s import preflight, rayjob, record, state
from k8s.client import Api, Object
from k8s.errors import Misuse, Refusal, Unreachable
from k8s.job import Job
from k8s.settings import Settings
from k8s.state import State


class RayJobs:
    """``seen``: jobs this process has seen: one that is no longer there was deleted, and is not unknown."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.api = Api(settings.context, settings.namespace)
        self.seen: set[str] = set()
        self.where = f"namespace {self.api.namespace} of {self.api.host}"

    def start(self, job: Job) -> bool:
        """Whether it was created; else it was there.  Errors: ``Misuse`` before anything is created."""
        body = rayjob.rayjob(self.settings, job)
        body["metadata"]["namespace"] = self.api.namespace
        there = self._get(job.name)
        if there is None:
            preflight.check(self.api, self.settings, body)
            self._alone(job)
            self._prune(job)
        elif self.settings.again and self._read(there).code is not None:
            self._remove(there)
            there = None
        created = there is None
        if there is None:
            try:
                there = self.api.create(body)
            except Refusal as error:
                if error.status != 409:
                    raise Misuse(f"the cluster refuses the job ({error})") from error
                there, created = self.api.get("RayJob", job.name), False  # another submitter was first
        if there is None:
            raise Misuse(f"{job.name} was deleted while it was submitted; submit it again")
        self._same(there, job)
        self._lease(there)
        self.seen.add(job.name)
        return created

    def state(self, name: str) -> State:
        """Errors: ``Misuse`` for a job that never was."""
        there = self._get(name)
        if there is None:
            if name in self.seen:
                return state.ended(name, state.STOPPED, "Deleted", "it was deleted before its end was seen")
            raise Misuse(f"{name}: no such job in {self.where}; `holdfast list` shows what there is")
        self.seen.add(name)
        return self._read(there)

    def jobs(self) -> list[State]:
        found = self.api.list("RayJob", rayjob.MANAGED)
        return [self._read(each) for each in sorted(found, key=_created, reverse=True)]

    def cancel(self, name: str) -> None:
        """Delete it, and with it its cluster and its lease; the workers save within their grace."""
        if self._get(name) is None:
            raise Misuse(f"{name}: no such job in {self.where}; `holdfast list` shows what there is")
        self.seen.add(name)
        self.api.delete("RayJob", name)

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
            if name in self.seen:  # a server that has just come back knows no rights yet
                raise Unreachable(f"{self.api.host} answers {error.status} ({error})", error.status) from error
            raise Misuse(f"namespace={self.api.namespace}: you may not look at jobs there ({error})") from error

    def _read(self, there: Object) -> State:
        name, status = there["metadata"]["name"], there.get("status") or {}
        quiet = status.get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed")
        pods: list[Object] = []
        workloads: list[Object] = []
        if not quiet and status.get("jobStatus") != "RUNNING":
            if cluster := status.get("rayClusterName"):
                pods = self.api.list("Pod", {"ray.io/cluster": cluster})
            pods += self.api.list("Pod", {"job-name": name})
            if rayjob.QUEUE in (there["metadata"].get("labels") or {}):
                workloads = self._workloads(there)
        return state.read(there, pods, workloads, record.read(self.api.get("Lease", name)))

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

    def _alone(self, job: Job) -> None:
        """Two trainings of one config would share a run and its checkpoints."""
        for each in self.api.list("RayJob", {rayjob.COMMAND: job.digest}):
            if each["metadata"]["name"] != job.name and self._read(each).code is None:
                other = each["metadata"]["name"]
                raise Misuse(
                    f"this very command is already running as {other}, with another image or place: follow it with "
                    f"`holdfast logs {other}`, or `holdfast cancel {other}` first"
                )

    def _prune(self, job: Job) -> None:
        """Delete jobs of the same command that ended long ago, as KubeRay keeps them for ever."""
        limit = datetime.now(UTC) - timedelta(minutes=self.settings.keep_minutes)
        for each in self.api.list("RayJob", {rayjob.COMMAND: job.digest}):
            ended = (each.get("status") or {}).get("endTime")
            if ended and datetime.fromisoformat(ended) < limit:
                self.api.delete("RayJob", each["metadata"]["name"], each["metadata"]["uid"])

    def _remove(self, there: Object) -> None:
        name, uid = there["metadata"]["name"], there["metadata"]["uid"]
        self.api.delete("RayJob", name, uid)
        while (found := self.api.get("RayJob", name)) is not None and found["metadata"]["uid"] == uid:
            self.api.wait("RayJob", name, 2.0)
        self.api.delete("Lease", name)  # with its record: the garbage collector may take its time

    def _lease(self, there: Object) -> None:
        owner = {**there, "apiVersion": "ray.io/v1", "kind": "RayJob"}
        try:
            self.api.create(record.lease(there["metadata"]["name"], self.api.namespace, owner))
        except Refusal as error:
            if error.status != 409:
                raise Misuse(f"namespace={self.api.namespace}: the job's lease cannot be made ({error})") from error


def _created(item: Object) -> str:
    return str(item["metadata"].get("creationTimestamp") or "")


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")

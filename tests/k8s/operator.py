"""A test double of the KubeRay operator: takes RayJobs through their states and runs their entrypoints on a real Ray.

It writes what the recorded watch streams of v1.7.0 show (`tests/k8s/traces.py`), step by step, from the status
alone, as it does. What is real: the API server, the scheduler that places the Pods of the RayCluster, the
submitter's Job and its retries, and a Ray head on this machine that runs the entrypoint. What is not: one head
serves every RayCluster in turn, so a cluster that ends has its job stopped, and the submitter ends well, where a
real one would wait for a dashboard that is gone; head and worker Pods are said to run as soon as they are placed.
Of the submission modes only K8sJobMode is played, and no clusterSelector. Never to be run beside a real operator.
"""

import json
import threading
from collections.abc import Collection
from datetime import UTC, datetime

import pytest
import requests

from tests.k8s.controlplane.control_plane import ControlPlane
from tests.k8s.head import Head
from tests.k8s.objects import Objects, now, suffixed
from tests.k8s.plane import Object, Plane
from tests.k8s.pods import NO_CLUSTER
from tests.k8s.raycluster import RayClusters
from tests.k8s.rules import invalid
from tests.k8s.submission import submitter

FINALIZER = "ray.io/rayjob-finalizer"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
EMPTY = {"rayClusterStatus": NO_CLUSTER, "rayJobInfo": {}}


class Operator:
    """Reconciles the RayJobs of a namespace in a thread of its own until the block ends."""

    def __init__(
        self, plane: Plane, namespace: str, head: Head, every: float = 0.2, absent_images: Collection[str] = ()
    ) -> None:
        if not isinstance(plane, ControlPlane):
            pytest.skip("--kube-context: the operator of a cluster that is not ours is not played beside a real one")
        self.objects, self.head, self.every = Objects(plane, namespace), head, every
        self.clusters = RayClusters(self.objects, head, absent_images)
        self._stop, self._error = threading.Event(), None
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)

    _error: BaseException | None

    def __enter__(self) -> "Operator":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """What it leaves has no finalizer, or the namespace would never go."""
        self._stop.set()
        self._thread.join()
        for job in self.objects.all("RayJob"):
            self._end_cluster(job)
            self.objects.finalizers("RayJob", job["metadata"]["name"], [])
        if self._error is not None and error[0] is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.wait(self.every):
                self.clusters.look()
                for job in self.objects.all("RayJob"):
                    self._reconcile(job)
        except BaseException as error:
            self._error = error

    def _reconcile(self, job: Object) -> None:
        status = job.get("status") or {}
        state = status.get("jobDeploymentStatus", "New")
        if "deletionTimestamp" in job["metadata"]:
            self._end_cluster(job)
            self.objects.finalizers("RayJob", job["metadata"]["name"], [])
            return
        step = getattr(self, f"_{state.lower()}", None)
        after = step(job, json.loads(json.dumps(status))) if step else None
        if after is not None and after != status:
            self._count(job["spec"], after, state)
            self.objects.status("RayJob", job["metadata"]["name"], after)

    def _count(self, spec: Object, after: Object, before: str) -> None:
        """A failure counts, and is tried again while backoffLimit allows; a deadline never is."""
        if after.get("jobDeploymentStatus") == before:
            return
        if after.get("jobDeploymentStatus") == "Failed":
            after["failed"] = after.get("failed", 0) + 1
            if after["failed"] <= spec.get("backoffLimit", 0) and "Deadline" not in after["reason"]:
                after["jobDeploymentStatus"] = "Retrying"
            else:
                after["endTime"] = now()
        if after.get("jobDeploymentStatus") == "Complete":
            after["endTime"] = now()
            after["succeeded"] = after.get("succeeded", 0) + (after["jobStatus"] == "SUCCEEDED")

    def _new(self, job: Object, status: Object) -> Object:
        name, base = job["metadata"]["name"], {"failed": 0, "succeeded": 0, **EMPTY}
        if reason := invalid(job):
            metadata = "Metadata" if "metadata" in reason else "Spec"
            about = f"{self.objects.namespace}/{name}: {reason}"
            self.objects.event(job, "RayJob", f"InvalidRayJob{metadata}", about, warning=True)
            return {**base, "jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": reason}
        if FINALIZER not in job["metadata"].get("finalizers", []):
            self.objects.patch("RayJob", name, adoption(job))
        ids = {"jobId": job["spec"].get("jobId") or suffixed(name), "rayClusterName": suffixed(name)}
        counts = {key: status.get(key, 0) for key in ("failed", "succeeded")}
        return {**base, **counts, **ids, "jobDeploymentStatus": "Initializing", "startTime": now()}

    def _initializing(self, job: Object, status: Object) -> Object:
        spec = job["spec"]
        if late := overdue(spec, status, "activeDeadlineSeconds") or overdue(spec, status, "preRunningDeadlineSeconds"):
            return late
        if spec.get("suspend"):
            return {**status, "jobDeploymentStatus": "Suspending"}
        status["rayClusterStatus"] = cluster = self.clusters.reconcile(job, status["rayClusterName"])
        if cluster.get("state") != "ready":
            return status
        self.objects.create("Job", submitter(job, status["jobId"], self.head.url))
        about = f"Created Kubernetes Job {self.objects.namespace}/{job['metadata']['name']}"
        self.objects.event(job, "RayJob", "CreatedRayJobSubmitter", about)
        return {**status, "jobDeploymentStatus": "Running", "dashboardURL": self.head.url.removeprefix("http://")}

    def _running(self, job: Object, status: Object) -> Object:
        spec, name = job["spec"], job["metadata"]["name"]
        if late := overdue(spec, status, "activeDeadlineSeconds"):
            return late
        if spec.get("suspend"):
            return {**status, "jobDeploymentStatus": "Suspending"}
        status["rayClusterStatus"] = self.clusters.reconcile(job, status["rayClusterName"])
        ended = self._submitter_ended(name)
        if ended and ended["type"] == "Failed":
            message = f"Job submission has failed. Reason: {ended['reason']}. Message: {ended['message']}"
            return {**status, "jobDeploymentStatus": "Failed", "reason": "SubmissionFailed", "message": message}
        try:
            found = self.head.job(status["jobId"])
        except requests.RequestException:
            return {"jobStatusCheckFailureStartTime": now(), **status}
        if found is None:
            if ended:
                message = "Submitter completed but Ray job not found in RayCluster."
                return {**status, "jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": message}
            return status
        status.pop("jobStatusCheckFailureStartTime", None)
        seen = status | {"jobStatus": found["status"], "message": found["message"], "rayJobInfo": times(found)}
        if found["status"] not in ENDED or not ended or status.get("jobStatus") != found["status"]:
            return seen  # every recorded life with a submitter shows its last jobStatus while it is Running
        if found["status"] == "FAILED":
            return {**seen, "jobDeploymentStatus": "Failed", "reason": "AppFailed"}
        return {**seen, "jobDeploymentStatus": "Complete"}

    def _suspending(self, job: Object, status: Object) -> Object:
        self._end_cluster(job)
        return {**self._cleared(status), "jobDeploymentStatus": "Suspended"}

    def _suspended(self, job: Object, status: Object) -> Object:
        return status if job["spec"].get("suspend") else self._cleared(status)

    def _retrying(self, job: Object, status: Object) -> Object:
        self._end_cluster(job)
        return self._cleared(status)

    def _complete(self, job: Object, status: Object) -> None:
        spec, ended = job["spec"], datetime.fromisoformat(status["endTime"])
        waited = (datetime.now(UTC) - ended).total_seconds()
        if spec.get("shutdownAfterJobFinishes") and waited >= spec.get("ttlSecondsAfterFinished", 0):
            self._end_cluster(job, submitter_too=False)

    _failed = _complete

    @staticmethod
    def _cleared(status: Object) -> Object:
        """What Suspended, and the moment before the next try, keep of a status."""
        return {**EMPTY, **{key: status[key] for key in ("failed", "succeeded", "startTime")}}

    def _end_cluster(self, job: Object, submitter_too: bool = True) -> None:
        """A head that went would take its job along: here it is stopped."""
        status = job.get("status") or {}
        if submitter_too:
            self.objects.delete("Job", job["metadata"]["name"])
        name = status.get("rayClusterName")
        if name and self.objects.get("RayCluster", name):
            if status.get("jobStatus") not in ENDED:
                self.head.stop(status["jobId"])
            self.clusters.delete(job, name)

    def _submitter_ended(self, name: str) -> Object | None:
        found = self.objects.get("Job", name) or {}
        conditions = found.get("status", {}).get("conditions", [])
        ends = [each for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True"]
        return ends[0] if ends else None


def adoption(job: Object) -> list[Object]:
    """The operator's finalizer; the zero values it writes on that occasion make generation 2, though nobody edited."""
    spec = job["spec"]
    templates = {"/spec/rayClusterSpec/headGroupSpec/template": spec["rayClusterSpec"]["headGroupSpec"]["template"]}
    for place, group in enumerate(spec["rayClusterSpec"].get("workerGroupSpecs", [])):
        templates[f"/spec/rayClusterSpec/workerGroupSpecs/{place}/template"] = group["template"]
    if "submitterPodTemplate" in spec:
        templates["/spec/submitterPodTemplate"] = spec["submitterPodTemplate"]
    changes = [{"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}]
    return changes + [
        {"op": "add", "path": f"{path}/metadata", "value": {}}
        for path, each in templates.items()
        if "metadata" not in each
    ]


def played(pod: Object) -> bool:
    """Whether a Pod's status is written here or by the player of recordings: no kubelet may run it."""
    return "ray.io/is-ray-node" in pod["metadata"].get("labels", {}) or pod["spec"]["schedulerName"] == "recorded"


def overdue(spec: Object, status: Object, setting: str) -> Object | None:
    began = datetime.fromisoformat(status["startTime"])
    if setting not in spec or (datetime.now(UTC) - began).total_seconds() < spec[setting]:
        return None
    title = setting[0].upper() + setting[1:]
    message = (
        f"The RayJob has passed the {setting}. StartTime: {began:%Y-%m-%d %H:%M:%S} +0000 UTC. {title}: {spec[setting]}"
    )
    reason = "PreRunningDeadlineExceeded" if setting.startswith("pre") else "DeadlineExceeded"
    return {**status, "jobDeploymentStatus": "Failed", "reason": reason, "message": message}


def times(found: Object) -> Object:
    stamps = {"startTime": found.get("start_time"), "endTime": found.get("end_time")}
    return {
        key: datetime.fromtimestamp(stamp / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for key, stamp in stamps.items()
        if stamp
    }

"""The double of the operator takes RayJobs through the states that the real one was recorded to take them through."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.k8s.head import Head
from tests.k8s.kubelet import Kubelet
from tests.k8s.life import CONTAINER, Life, rayjob
from tests.k8s.operator import Operator, played
from tests.k8s.plane import Object, Plane, until
from tests.k8s.traces import MISSING, RECORDINGS, Trace, course

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason=MISSING)
ABSENT = "registry.test/absent:1"


@pytest.fixture
def begin(
    plane: Plane, crds: list[str], namespace: str, head: Head, start_kubelet: Callable[..., Kubelet]
) -> Iterator[Callable[..., Life]]:
    plane.node("one")
    start_kubelet(runs=lambda pod: not played(pod))
    with Operator(plane, namespace, head, absent_images={ABSENT}):
        yield lambda name, entrypoint="true", **spec: Life(plane, namespace, rayjob(name, entrypoint, **spec))


class Gate:
    """Where an entrypoint waits until it was seen to run: what is quick might be over before the operator looks."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, f"until rm {path} 2> /dev/null; do sleep 0.1; done"

    def open(self, life: Life) -> Object:
        """Its status, when it runs."""
        status = life.until("Running", status="RUNNING")
        self.path.touch()
        until(lambda: not self.path.exists())
        return status


def as_recorded(life: Life, scenario: str) -> Object:
    """Its last status."""
    found = life.statuses
    assert form(found) == form(Trace(scenario).statuses)
    return found[-1]


def form(statuses: list[Object]) -> list[tuple[str, str, str]]:
    """A course without PENDING, which lasts for one look of the operator or for none."""
    return course([status for status in statuses if status.get("jobStatus") != "PENDING"])


def with_head(**container: object) -> Object:
    """A RayCluster's spec."""
    cluster: Object = rayjob("any")["spec"]["rayClusterSpec"]
    template = {"spec": {"containers": [{**CONTAINER, **container}]}}
    return {**cluster, "headGroupSpec": {**cluster["headGroupSpec"], "template": template}}


def test_four_lives_at_once(begin: Callable[..., Life], head: Head, tmp_path: Path) -> None:
    """A success, a failure, one that succeeds at its second try, and one that is deleted in mid-run."""
    gates = [Gate(tmp_path / name) for name in ("success", "failure", "again")]
    env = [{"name": "PLACE", "value": "head"}, {"name": "WHO", "value": "container"}, {"name": "HOME", "value": "/x"}]
    settings = {"rayClusterSpec": with_head(env=env), "runtimeEnvYAML": "env_vars: {PLACE: runtime}"}
    success = begin("success", f"echo $PLACE, $WHO, $HOME; {gates[0].line}", **settings)
    failure = begin("failure", f"echo about to fail; {gates[1].line}; exit 7")
    second = f"{gates[2].line}; test -e {tmp_path}/once || {{ touch {tmp_path}/once; exit 7; }}"
    again = begin("again", second, backoffLimit=1)
    deleted = begin("deleted", "sleep 1000")
    first = gates[2].open(again)
    gates[0].open(success)
    gates[1].open(failure)
    running = deleted.until("Running", status="RUNNING")
    deleted.delete()
    until(lambda: again.status.get("jobId") not in (None, first["jobId"]), 150)
    gates[2].open(again)
    look_at_success(success)
    look_at_failure(failure)
    look_at_second_try(again)
    until(lambda: deleted.now is None)
    as_recorded(deleted, "deleted-mid-run")
    until(lambda: (head.job(running["jobId"]) or {}).get("status") == "STOPPED")


def look_at_success(life: Life) -> None:
    life.until("Complete")
    status = as_recorded(life, "success")
    assert (status["succeeded"], status["failed"], status["message"]) == (1, 0, "Job finished successfully.")
    (pod,) = life.objects("pods", f"job-name={life.name}")
    log = life.log(pod["metadata"]["name"])
    assert f"\nruntime, container, {Path.home()}\n" in log
    assert log.endswith(f"Job '{status['jobId']}' succeeded\n")
    until(lambda: not life.pods)
    (adopted,) = [each["object"] for each in life.watched() if each["object"]["metadata"]["generation"] == 2][:1]
    assert adopted["metadata"]["finalizers"] == ["ray.io/rayjob-finalizer"]


def look_at_failure(life: Life) -> None:
    life.until("Failed")
    status = as_recorded(life, "app-failed")
    first = "Job entrypoint command failed with exit code 7, last available logs (truncated to 20,000 chars):\n"
    assert status["message"].startswith(first)
    assert "\nabout to fail\n" in status["message"]
    assert (status["succeeded"], status["failed"]) == (0, 1)
    (job,) = [job for job in life.objects("jobs") if job["metadata"]["name"] == life.name]
    assert job["status"]["succeeded"] == 1, "its submitter ends well though the job failed"


def look_at_second_try(life: Life) -> None:
    life.until("Complete")
    status = as_recorded(life, "app-failed-backoff-1")
    assert (status["succeeded"], status["failed"]) == (1, 1)
    assert len({each["jobId"] for each in life.statuses if "jobId" in each}) == 2
    assert len({each["rayClusterName"] for each in life.statuses if "rayClusterName" in each}) == 2


def test_head_killed(begin: Callable[..., Life], head: Head, tmp_path: Path) -> None:
    """The submitter's Job tries again, and the entrypoint runs again, unless it may not."""
    gate = Gate(tmp_path / "gate")
    twice = begin("twice", f"echo >> {tmp_path}/begun; {gate.line}")
    once = begin("once", "sleep 1000", submitterConfig={"backoffLimit": 0})
    first = twice.until("Running", status="RUNNING")
    once.until("Running", status="RUNNING")
    until((tmp_path / "begun").exists)
    head.kill()
    once.until("Failed")
    lost = "head-pod-killed-submitter-backoff-0"
    assert as_recorded(once, lost)["message"] == Trace(lost).statuses[-1]["message"]
    until(lambda: (tmp_path / "begun").read_text() == "\n\n", 150)
    until(lambda: twice.status.get("rayJobInfo", {}).get("startTime", "") > first["rayJobInfo"]["startTime"])
    gate.open(twice)
    twice.until("Complete")
    status = as_recorded(twice, "head-pod-killed")
    assert (status["jobId"], status["failed"]) == (first["jobId"], 0)
    assert any("jobStatusCheckFailureStartTime" in each for each in twice.statuses)
    (job,) = [job for job in twice.objects("jobs") if job["metadata"]["name"] == "twice"]
    assert job["status"]["failed"] >= 1
    assert job["status"]["succeeded"] == 1


def test_four_lives_that_never_run(begin: Callable[..., Life]) -> None:
    """One refused, one in a queue, one without room for its worker, one without an image for its head."""
    refused = begin("refused", ttlSecondsAfterFinished=-1)
    queued = begin("queued", suspend=True)
    wide = with_head()
    worker = {**CONTAINER, "resources": {"limits": {"nvidia.com/gpu": "4"}}}
    wide["workerGroupSpecs"][0]["template"] = {"spec": {"containers": [worker]}}
    roomless = begin("roomless", rayClusterSpec=wide)
    imageless = begin("imageless", rayClusterSpec=with_head(image=ABSENT), preRunningDeadlineSeconds=20)
    look_at_refused(refused)
    look_at_queued(queued)
    look_at_roomless(roomless)
    imageless.until("Failed")
    as_recorded(imageless, "pre-running-deadline")
    conditions = [each["rayClusterStatus"].get("conditions", [{}])[0] for each in imageless.statuses[1:] if each]
    assert {"ErrImagePull", "ImagePullBackOff"} <= {each.get("reason") for each in conditions}


def look_at_refused(life: Life) -> None:
    """For good: a corrected spec does not revive it."""
    life.until("ValidationFailed")
    life.patch(ttlSecondsAfterFinished=0)
    recorded = Trace("validation-failed", "negative-ttl").statuses
    assert course(life.statuses) == course(recorded)
    assert life.now
    assert life.status["message"] == recorded[-1]["message"]
    assert "finalizers" not in life.now["metadata"]


def look_at_queued(life: Life) -> None:
    life.until("Suspended")
    assert not life.pods
    life.patch(suspend=False)
    life.until("Initializing")
    recorded = course(Trace("created-suspended").statuses)
    there = course(life.statuses)
    assert there == recorded[: len(there)]


def look_at_roomless(life: Life) -> None:
    """Nothing in the RayJob says why; its Pod does, in the scheduler's words."""

    def told() -> list[Object]:
        return [each for pod in life.pods for each in pod["status"].get("conditions", []) if each["status"] == "False"]

    assert "Insufficient nvidia.com/gpu" in until(told)[0]["message"]
    assert life.status["jobDeploymentStatus"] == "Initializing"

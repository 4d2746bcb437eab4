"""How a job is: every recorded life of a RayJob, read row by row as a client would see it."""

from collections.abc import Iterator
from typing import Any

import pytest

from k8s import state
from k8s.record import Record
from k8s.state import ENDED, FAILURE, LOST, MISUSE, OK, REFUSED, STARTING, STOPPED, WAITING, State
from tests.k8s.traces import RECORDINGS, Trace, lives, recordings

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings lie in shared, which is not here")

ENDS = {
    "app-failed": (FAILURE, "exit code 1"),
    "app-failed-backoff-1": (OK, "succeeded"),
    "app-failed-backoff-1-twice": (FAILURE, "exit code 1"),
    "created-suspended": (OK, "succeeded"),
    "deadline": (FAILURE, "activeDeadlineSeconds"),
    "head-pod-killed": (OK, "succeeded"),
    "head-pod-killed-backoff-1": (OK, "succeeded"),
    "head-pod-killed-http-mode": (OK, "succeeded"),
    "head-pod-killed-job-ends-in-grace": (LOST, "its end is not known"),
    "head-pod-killed-submitter-backoff-0": (LOST, "BackoffLimitExceeded"),
    "no-shutdown": (OK, "succeeded"),
    "operator-restarted": (OK, "succeeded"),
    "pre-running-deadline": (FAILURE, "preRunningDeadlineSeconds"),
    "stopped": (STOPPED, "intentionally stopped"),
    "submitter-killed": (OK, "succeeded"),
    "success": (OK, "succeeded"),
    "success-http-mode": (OK, "succeeded"),
    "suspended-resumed": (OK, "succeeded"),
    "ttl": (OK, "succeeded"),
    "worker-pod-killed": (OK, "succeeded"),
}
"""By exit code and words, as far as the cluster alone tells; those that are deleted by hand are below."""
PENDING = {"unschedulable": "free GPUs", "image-pull-fails": "image cannot be pulled"}
INVALID = {
    "1-starts-with-digit": "a valid DNS1035 label",
    "bad-runtime-env": "failed to unmarshal RuntimeEnvYAML",
    "has.dot": "a valid DNS1035 label",
    "interactive-backoff": "BackoffLimit is incompatible with InteractiveMode",
    "min-over-max": "minReplicas 3 greater than maxReplicas 1",
    48 * "n": "no more than 47 characters",
    64 * "n": "no more than 47 characters",
    "negative-backoff": "backoffLimit must be a positive integer",
    "negative-ttl": "TTLSecondsAfterFinished must be a non-negative integer",
    "no-cluster-spec": "one of RayClusterSpec or ClusterSelector must be set",
    "no-containers": "headGroupSpec should have at least one container",
    "selector-and-backoff": "BackoffLimit is incompatible with ClusterSelector mode",
    "sidecar-with-template": "SidecarMode doesn't support SubmitterPodTemplate",
    "suspend-no-shutdown": "is not allowed to be suspended",
    "ttl-no-shutdown": "cannot have TTLSecondsAfterFinished",
    "zero-deadline": "activeDeadlineSeconds must be a positive integer",
}
"""Cases of `validation-failed` that the operator refused, and its words: the exit code of each is 2."""


def seen(trace: Trace, record: Record | None = None) -> Iterator[State]:
    """After each row: the RayJob with the pods there are."""
    pods: dict[str, dict[str, Any]] = {}
    job: dict[str, Any] = {}
    for row in trace.rows:
        if row.kind == "Pod":
            before = pods.get(row.name, {})
            metadata = {**before.get("metadata", {}), **row.object["metadata"]}
            pods[row.name] = {**before, **row.object, "metadata": metadata}
            if row.type == "DELETED":
                del pods[row.name]
        if row.kind == "RayJob":
            job = {
                **job,
                **row.object,
                "spec": {**job.get("spec", {}), **row.object.get("spec", {}), **(row.object.get("spec_changed") or {})},
            }
        if job:
            job["metadata"] = {**job["metadata"], "creationTimestamp": None}  # it was recorded long ago
            yield state.read(job, list(pods.values()), [], [], record)


def test_there_is_an_end_for_every_recording() -> None:
    by_hand, started = {"deleted-mid-run", "raycronjob"}, {"bad-mode", "unknown-field", 47 * "n"}
    known = {Trace(scenario) for scenario in {*ENDS, *PENDING} | by_hand}
    known |= {Trace("validation-failed", case) for case in {*INVALID} | started}
    assert set(lives()) == known
    assert set(recordings()) - {trace.scenario for trace in lives()} == {"cronjob"}, "it has no RayJob"


@pytest.mark.parametrize("case", INVALID)
def test_what_the_operator_refuses_ends_as_misuse_in_its_words(case: str) -> None:
    found = list(seen(Trace("validation-failed", case)))
    assert {each.code for each in found} == {None, MISUSE}
    assert INVALID[case] in found[-1].told()


@pytest.mark.parametrize("scenario", sorted(ENDS))
def test_a_life_ends_once_with_its_code_and_words(scenario: str) -> None:
    code, words = ENDS[scenario]
    found = list(seen(Trace(scenario)))
    ends = [each for each in found if each.code is not None and each.reason != "Deleted"]
    assert {(each.code, each.phase) for each in ends} == {(code, ENDED)}
    assert words in ends[-1].told()
    first = found.index(ends[0])
    assert all(each.code is None for each in found[:first]), "no end before the end"


@pytest.mark.parametrize("scenario", sorted(PENDING))
def test_what_never_starts_says_why(scenario: str) -> None:
    found = [each for each in seen(Trace(scenario)) if each.reason != "Deleted"]
    assert {each.code for each in found} == {None}
    assert any(PENDING[scenario] in each.message for each in found), {each.message for each in found}
    assert any(each.hopeless for each in found) == (scenario == "image-pull-fails")


def test_a_deleted_job_was_stopped() -> None:
    found = list(seen(Trace("deleted-mid-run")))
    assert found[-1].code == STOPPED


@pytest.mark.parametrize("exit_code", [0, 1, 2, 3, 5, 42])
def test_what_the_command_left_is_believed_over_the_operator(exit_code: int) -> None:
    lost = list(seen(Trace("head-pod-killed-job-ends-in-grace"), Record(exit_code, None)))[-1]
    assert lost.exit_code == exit_code
    assert lost.code == (exit_code if exit_code <= 5 else FAILURE)
    if not exit_code:
        assert "had ended well, though KubeRay says AppFailed" in lost.message


def test_a_refusal_is_a_stopped_job_with_its_code_in_the_record() -> None:
    assert list(seen(Trace("stopped"), Record(3, None)))[-1].code == REFUSED
    assert list(seen(Trace("stopped"), Record(2, None)))[-1].code == MISUSE
    assert list(seen(Trace("stopped"), Record(None, "pod-1")))[-1].code == STOPPED


def test_a_job_that_no_operator_looks_at_says_so() -> None:
    old = {"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}
    found = state.read(old, [], [], [], None)
    assert found.hopeless
    assert "operator has not looked at it" in found.message


def test_a_cleared_status_is_not_yet_an_end() -> None:
    cleared = {"metadata": {"name": "x"}, "spec": {}, "status": {"failed": 1}}
    assert state.read(cleared, [], [], [], None).phase == STARTING
    assert state.read({"metadata": {"name": "x"}, "spec": {}}, [], [], [], None).phase == STARTING


def test_validation_fails_as_misuse() -> None:
    job = {
        "metadata": {"name": "x"},
        "spec": {},
        "status": {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "no head"},
    }
    found = state.read(job, [], [], [], None)
    assert (found.code, found.told()) == (MISUSE, "refused as misuse: no head")


def test_a_job_in_a_queue_says_what_it_waits_for() -> None:
    job = {"metadata": {"name": "x", "labels": {"kueue.x-k8s.io/queue-name": "gpu"}}, "spec": {"suspend": True}}
    reserved = {"type": "QuotaReserved", "status": "False", "message": "couldn't assign flavors: insufficient quota"}
    found = state.read(job, [], [{"status": {"conditions": [reserved]}}], [], None)
    assert (found.phase, found.code) == (WAITING, None)
    assert found.message == "waiting for quota of queue gpu (couldn't assign flavors: insufficient quota)"
    assert "admission by queue gpu" in state.read(job, [], [], [], None).message


def test_a_pending_pod_names_its_own_pool_and_gpus() -> None:
    pod = {
        "metadata": {"labels": {"holdfast/pool": "a10g-4"}},
        "spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "4"}}}]},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]},
    }
    assert state.hindrance([pod], "?") == ("no node of pool a10g-4 has 4 free GPUs (0/3 nodes are available)", False)

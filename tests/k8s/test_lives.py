"""Whole lives of a job: submitted, run on a real Ray head, ended; KubeRay's part by ``tests.k8s.operator``."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k8s import record
from k8s.backends.rayjob import RayJobs
from k8s.job import Job, make
from k8s.settings import Settings
from k8s.state import FAILURE, OK, REFUSED, RUNNING, STOPPED
from tests.k8s.head import Head
from tests.k8s.kubelet import Kubelet
from tests.k8s.lives import Lives
from tests.k8s.operator import played
from tests.k8s.plane import Plane, until
from tests.k8s.waiting import Waiting


@pytest.fixture
def lives(
    crds: list[str],
    plane: Plane,
    namespace: str,
    head: Head,
    start_kubelet: Callable[..., Kubelet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Lives]:
    kubelet = start_kubelet(runs=lambda pod: not played(pod))
    with Lives(tmp_path, plane, namespace, head, kubelet) as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig))
        yield found


def submitted(lives: Lives, retries: int = 1) -> tuple[RayJobs, Job]:
    place = RayJobs(Settings(image="a/b:1", pool="cpu", env=lives.env, retries=retries))
    job = make(place.settings, ("train", "recipe=digits_standard"))
    assert place.start(job)
    return place, job


@pytest.mark.parametrize(("exit_code", "code"), [(0, OK), (42, FAILURE)])
def test_a_job_ends_with_its_commands_code_and_shows_its_log(lives: Lives, exit_code: int, code: int) -> None:
    lives.go(exit_code)
    place, job = submitted(lives, retries=0)
    waiting = Waiting(place, job.name, patience=60.0)
    found = waiting.found(120.0)
    assert (found.code, found.exit_code) == (code, exit_code)
    assert [line for line in waiting.lines if line in ("begun", "done")] == ["begun", "done"]
    assert record.read(place.api.get("Lease", job.name)) == record.Record(exit_code, None)


def test_a_refusal_is_told_and_not_tried_again(lives: Lives) -> None:
    lives.go(3)
    place, job = submitted(lives, retries=2)
    found = Waiting(place, job.name, patience=60.0).found(120.0)
    assert (found.code, found.exit_code) == (REFUSED, 3)
    status = place.api.get("RayJob", job.name)
    assert status
    assert status["status"]["jobStatus"] == "STOPPED", "a failed one would be tried again, on a new cluster"
    assert lives.runs == 1


def test_a_failure_is_tried_again(lives: Lives) -> None:
    lives.go(1)
    place, job = submitted(lives, retries=1)
    assert Waiting(place, job.name, patience=60.0).found(120.0).code == FAILURE
    assert lives.runs == 2


def test_a_head_that_dies_is_followed_by_another_that_runs_the_command(lives: Lives, head: Head) -> None:
    place, job = submitted(lives, retries=2)
    waiting = Waiting(place, job.name, patience=60.0)
    until(lambda: lives.runs == 1, 60)
    head.kill()
    until(lambda: lives.runs == 2, 120)
    lives.go()
    assert waiting.found(120.0).code == OK
    assert lives.runs == 2


def test_a_cut_log_and_a_server_that_restarts_lose_no_line_and_no_end(lives: Lives) -> None:
    place, job = submitted(lives)
    waiting = Waiting(place, job.name, patience=60.0)
    until(lambda: "begun" in waiting.lines, 60)
    lives.kubelet.cut_logs()
    lives.plane.stop_api()
    lives.plane.start_api()
    lives.go()
    assert waiting.found(120.0).code == OK
    assert [line for line in waiting.lines if line in ("begun", "done")] == ["begun", "done"]


def test_a_cancelled_job_ends_its_command(lives: Lives) -> None:
    place, job = submitted(lives)
    waiting = Waiting(place, job.name, patience=60.0)
    until(lambda: lives.runs == 1, 60)
    assert place.state(job.name).phase == RUNNING
    place.cancel(job.name)
    assert waiting.found(120.0).code == STOPPED
    until(lambda: place.api.get("RayJob", job.name) is None)


def test_a_submitter_that_is_killed_leaves_a_job_that_the_same_line_finds_again(lives: Lives) -> None:
    words = ("retries=0", "--entrypoint-code")
    first = lives.submit(*words)
    until(lambda: "begun" in first.lines, 120)
    first.kill()
    assert first.code() == -signal.SIGKILL
    place = RayJobs(Settings())
    (left,) = place.jobs()
    assert (left.phase, left.code) == (RUNNING, None)
    before = place.api.get("RayJob", left.name)
    second = lives.submit(*words)
    until(lambda: any(f"{left.name} is there already" in line for line in second.lines))
    lives.go(42)
    assert second.code() == 42
    assert [line for line in second.lines if line in ("begun", "done")] == ["begun", "done"]
    after = place.api.get("RayJob", left.name)
    assert before
    assert after
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert lives.runs == 1

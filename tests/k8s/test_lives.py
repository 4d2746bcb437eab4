"""Whole lives of a job: submitted, run on a real Ray head, ended; KubeRay's part by ``tests.k8s.operator``.

The job's command is a program of the test's in place of ``holdfast``, found first on the head's PATH.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s import record
from k8s.backends.rayjob import RayJobs
from k8s.follow import follow
from k8s.job import Job, make
from k8s.settings import Settings
from k8s.state import FAILURE, OK, REFUSED, RUNNING, STOPPED, State
from tests.k8s.cluster import accounts, nodes
from tests.k8s.kubelet import PROGRAMS, Kubelet
from tests.k8s.operator import Head, Operator, played
from tests.k8s.plane import Plane, until

PROGRAM = """#!/bin/bash
echo x >> {place}/runs
echo begun
until test -e {place}/go; do sleep 0.1; done
echo done
exit $(cat {place}/go)
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with Head() as started:
        until(lambda: started.ready, 120)
        yield started


class Lives:
    """A cluster with one pool, its operator, and the program that jobs run."""

    def __init__(self, folder: Path, plane: Plane, namespace: str, operator: Operator, kubelet: Kubelet) -> None:
        self.folder, self.plane, self.namespace = folder, plane, namespace
        self.operator, self.kubelet = operator, kubelet

    def submitted(self, **more: Any) -> tuple[RayJobs, Job]:
        env = {"PATH": f"{self.folder}:{PROGRAMS}", "KUBECONFIG": str(self.folder / "job.kubeconfig")}
        env |= {"HOLDFAST_NAMESPACE": self.namespace, "HOLDFAST_LEASE_SECONDS": "24"}
        place = RayJobs(Settings(**{"image": "a/b:1", "pool": "cpu", "env": env, "retries": 1, **more}))
        job = make(place.settings, ("train", "recipe=digits_standard"))
        assert place.start(job)
        return place, job

    def go(self, exit_code: int = 0) -> None:
        (self.folder / "go.part").write_text(str(exit_code))
        (self.folder / "go.part").rename(self.folder / "go")

    @property
    def runs(self) -> int:
        path = self.folder / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0


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
    monkeypatch.setenv("KUBECONFIG", str(accounts(plane, namespace)))
    plane.kubeconfig_for(namespace, "holdfast-job", path=tmp_path / "job.kubeconfig")
    program = tmp_path / "holdfast"
    program.write_text(PROGRAM.format(place=tmp_path))
    program.chmod(0o755)
    nodes(plane, "head")
    nodes(plane, "cpu")
    kubelet = start_kubelet(runs=lambda pod: not played(pod))
    with Operator(plane, namespace, head) as operator:
        yield Lives(tmp_path, plane, namespace, operator, kubelet)


class Waiting(threading.Thread):
    def __init__(self, place: RayJobs, job: Job) -> None:
        super().__init__(daemon=True)
        self.place, self.job, self.end = place, job, None
        self.lines: list[str] = []
        self.start()

    end: State | None

    def run(self) -> None:
        self.end = follow(self.place, self.job.name, print, self.lines.append, 60.0)

    def found(self) -> State:
        self.join(120)
        assert self.end is not None
        return self.end


@pytest.mark.parametrize(("exit_code", "code"), [(0, OK), (42, FAILURE)])
def test_a_job_ends_with_its_commands_code_and_shows_its_log(lives: Lives, exit_code: int, code: int) -> None:
    lives.go(exit_code)
    place, job = lives.submitted(retries=0)
    waiting = Waiting(place, job)
    found = waiting.found()
    assert (found.code, found.exit_code) == (code, exit_code)
    assert [line for line in waiting.lines if line in ("begun", "done")] == ["begun", "done"]
    assert record.read(place.api.get("Lease", job.name)) == record.Record(exit_code, None)


def test_a_refusal_is_told_and_not_tried_again(lives: Lives) -> None:
    lives.go(3)
    place, job = lives.submitted(retries=2)
    found = Waiting(place, job).found()
    assert (found.code, found.exit_code) == (REFUSED, 3)
    status = place.api.get("RayJob", job.name)
    assert status
    assert status["status"]["jobStatus"] == "STOPPED", "a failed one would be tried again, on a new cluster"
    assert lives.runs == 1


def test_a_failure_is_tried_again(lives: Lives) -> None:
    lives.go(1)
    place, job = lives.submitted(retries=1)
    assert Waiting(place, job).found().code == FAILURE
    assert lives.runs == 2


def test_a_head_that_dies_is_followed_by_another_that_runs_the_command(lives: Lives, head: Head) -> None:
    place, job = lives.submitted(retries=2)
    waiting = Waiting(place, job)
    until(lambda: lives.runs == 1, 60)
    head.kill()
    until(lambda: lives.runs == 2, 120)
    lives.go()
    assert waiting.found().code == OK
    assert lives.runs == 2


def test_a_cut_log_and_a_server_that_restarts_lose_no_line_and_no_end(lives: Lives) -> None:
    place, job = lives.submitted()
    waiting = Waiting(place, job)
    until(lambda: "begun" in waiting.lines, 60)
    lives.kubelet.cut_logs()
    lives.plane.stop_api()
    lives.plane.start_api()
    lives.go()
    assert waiting.found().code == OK
    assert [line for line in waiting.lines if line in ("begun", "done")] == ["begun", "done"]


def test_a_cancelled_job_ends_its_command(lives: Lives) -> None:
    place, job = lives.submitted()
    waiting = Waiting(place, job)
    until(lambda: lives.runs == 1, 60)
    assert place.state(job.name).phase == RUNNING
    place.cancel(job.name)
    assert waiting.found().code == STOPPED
    until(lambda: place.api.get("RayJob", job.name) is None)

"""Jobs on a running Ray cluster: a real head, by its Jobs API."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from k8s.backends.ray import RayCluster
from k8s.errors import Misuse, Unreachable
from k8s.follow import follow
from k8s.job import Job
from k8s.settings import Settings
from k8s.state import FAILURE, LOST, OK, REFUSED, RUNNING, STOPPED, State
from tests.k8s.head import Head
from tests.k8s.plane import until


@dataclass(frozen=True)
class Shell(Job):
    """A job whose command line is any."""

    shell: str = "true"

    @property
    def line(self) -> str:
        return self.shell


def job(name: str, shell: str) -> Job:
    return Shell(name, ("train",), name, shell, shell)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with Head() as started:
        until(lambda: started.ready)
        yield started


def place(head: Head, **more: object) -> RayCluster:
    return RayCluster(Settings(backend="ray", address=head.url, **more))  # type: ignore[arg-type]


def run(head: Head, each: Job, **more: object) -> tuple[State, list[str]]:
    lines: list[str] = []
    backend = place(head, **more)
    backend.start(each)
    return follow(backend, each.name, print, lines.append, 20.0), lines


@pytest.mark.parametrize(("exit_code", "code"), [(0, OK), (1, FAILURE), (3, REFUSED), (42, FAILURE)])
def test_a_job_ends_with_its_commands_code(head: Head, exit_code: int, code: int) -> None:
    found, lines = run(head, job(f"ends-{exit_code}", f"echo to; echo be; exit {exit_code}"))
    assert (found.code, found.exit_code if exit_code else 0) == (code, exit_code)
    assert [line for line in lines if line in ("to", "be")] == ["to", "be"]


def test_submitted_again_it_is_followed_and_run_once(head: Head, tmp_path: Path) -> None:
    each = job("once", f"echo x >> {tmp_path}/runs; while ! test -e {tmp_path}/go; do sleep 0.1; done")
    first, second = place(head), place(head)
    assert first.start(each)
    assert not second.start(each)
    until(lambda: (tmp_path / "runs").exists())
    (tmp_path / "go").touch()
    assert follow(second, each.name, print, print, 20.0).code == OK
    assert (tmp_path / "runs").read_text() == "x\n"
    assert not place(head).start(each)
    assert place(head, again=True).start(each)
    assert follow(first, each.name, print, print, 20.0).code == OK
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_a_stopped_job_is_stopped(head: Head) -> None:
    backend, each = place(head), job("stopped", "sleep 600")
    backend.start(each)
    until(lambda: backend.state(each.name).phase == RUNNING)
    backend.cancel(each.name)
    assert follow(backend, each.name, print, print, 20.0).code == STOPPED


def test_the_log_is_shown_while_it_runs_and_each_line_once(head: Head, tmp_path: Path) -> None:
    each = job(
        "log",
        f"for i in 1 2 3; do echo line $i; sleep 0.5; done; until test -e {tmp_path}/go; do sleep 0.1; done; echo end",
    )
    backend, lines = place(head), []
    backend.start(each)
    waiting = threading.Thread(target=follow, args=(backend, each.name, print, lines.append, 20.0))
    waiting.start()
    until(lambda: "line 3" in lines)
    (tmp_path / "go").touch()
    waiting.join()
    assert [line for line in lines if line.startswith(("line", "end"))] == ["line 1", "line 2", "line 3", "end"]


def test_another_job_of_the_name_and_the_same_command_at_once_are_refused(head: Head) -> None:
    backend, each = place(head), job("taken", "sleep 600")
    backend.start(each)
    with pytest.raises(Misuse, match="name=taken is another job's"):
        place(head).start(job("taken", "sleep 1"))
    with pytest.raises(Misuse, match="already running as taken"):
        place(head).start(Shell("other", ("train",), each.digest, "other inputs", "sleep 1"))
    backend.cancel(each.name)
    until(lambda: backend.state(each.name).code == STOPPED)


def test_places_and_environment_reach_the_command(head: Head) -> None:
    each = job("places", "echo $MLFLOW_TRACKING_URI $HOLDFAST_STORAGE $EXTRA $HOLDFAST_JOB")
    found, lines = run(head, each, tracking_uri="http://mlflow:5000", storage="s3://b/p", env={"EXTRA": "more"})
    assert found.code == OK
    assert "http://mlflow:5000 s3://b/p more places" in lines


def test_an_unknown_job_is_a_misuse(head: Head) -> None:
    with pytest.raises(Misuse, match="nothing: no such job"):
        place(head).state("nothing")
    with pytest.raises(Misuse, match="nothing: no such job"):
        place(head).cancel("nothing")
    assert all(each.name != "nothing" for each in place(head).jobs())


def test_a_lost_head_is_waited_for_and_the_job_begun_again(tmp_path: Path) -> None:
    """A new head knows no old jobs: what ran on the old one went with it, so that none runs twice at once."""
    with Head() as own:
        until(lambda: own.ready)
        each = job("again", f"echo x >> {tmp_path}/runs; while ! test -e {tmp_path}/go; do sleep 0.1; done")
        backend = place(own, retries=1)
        backend.start(each)
        ends: list[State] = []
        waiting = threading.Thread(target=lambda: ends.append(follow(backend, each.name, print, print, 60.0)))
        waiting.start()
        until(lambda: (tmp_path / "runs").exists())
        own.kill()
        own.start()
        until(lambda: (tmp_path / "runs").read_text() == "x\nx\n")
        (tmp_path / "go").touch()
        waiting.join()
        assert [found.code for found in ends] == [OK]
        own.kill()
        own.start()
        until(lambda: own.ready)
        assert follow(backend, each.name, print, print, 20.0).code == LOST, "no more retries are left"
    with pytest.raises(Unreachable, match="does not answer"):
        backend.state(each.name)


def test_a_cluster_with_a_token_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        status_code, content, text = 401, b"", ""

    monkeypatch.setattr(requests.Session, "request", lambda *_, **__: Answer())
    with pytest.raises(Misuse, match="answers 401: set RAY_AUTH_TOKEN"):
        RayCluster(Settings(backend="ray", address="http://head:8265")).jobs()

"""Jobs on a running Ray cluster: a real head, by its Jobs API."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from k8s.backends import ray
from k8s.backends.ray import RayCluster
from k8s.errors import Misuse, Unreachable
from k8s.follow import follow
from k8s.job import Job
from k8s.settings import Settings
from k8s.state import FAILURE, LOST, OK, REFUSED, RUNNING, STOPPED, State
from tests.k8s.head import Head
from tests.k8s.plane import until
from tests.k8s.relay import Relay


@dataclass(frozen=True)
class Shell(Job):
    """A job whose command line is any."""

    shell: str = "true"

    @property
    def line(self) -> str:
        return self.shell


def job(name: str, shell: str) -> Job:
    return Shell(name, ("train",), name, shell, shell)


def place(head: Head, **more: object) -> RayCluster:
    return RayCluster(Settings(backend="ray", address=head.url, **more))  # type: ignore[arg-type]


def run(head: Head, each: Job, **more: object) -> tuple[State, list[str]]:
    lines: list[str] = []
    backend = place(head, **more)
    backend.start(each)
    return follow(backend, each.name, print, lines.append, 20.0), lines


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``answer(status, text, method)``: what all of that method get from now on, as of a proxy before the cluster."""
    real = requests.Session.request

    def now(status: int, text: str = "", method: str = "") -> None:
        def request(session: requests.Session, asked: str, *words: Any, **more: Any) -> requests.Response:
            if method not in ("", asked):
                return real(session, asked, *words, **more)
            said = requests.Response()
            said.status_code, said._content = status, text.encode()
            said.headers["Content-Type"] = "text/html"
            return said

        monkeypatch.setattr(requests.Session, "request", request)

    return now


def text(backend: RayCluster, name: str) -> list[str]:
    return [line for _, _, line in backend.logs(name, None)]


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


def test_a_cut_log_and_an_api_that_is_away_lose_no_line_and_no_end(head: Head, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"for i in $(seq 500); do echo line $i; done; until test -e {go}; do sleep 0.1; done; echo done; exit 3"
    each, lines, ends = job("cut", script), list[str](), list[State]()
    with Relay(head.dashboard) as relay:
        backend = RayCluster(Settings(backend="ray", address=relay.url))
        backend.start(each)
        waiting = threading.Thread(target=lambda: ends.append(follow(backend, each.name, print, lines.append, 60.0)))
        waiting.start()
        until(lambda: len(lines) >= 500)
        for _ in range(20):
            relay.cut()
            time.sleep(0.05)
        relay.away(2.0)
        go.touch()
        waiting.join(60)
    assert [end.code for end in ends] == [REFUSED]
    assert [line for line in lines if line.startswith(("line", "done"))] == [f"line {i}" for i in range(1, 501)] + [
        "done"
    ]


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


def test_a_last_line_without_its_end_is_shown_whole(head: Head, tmp_path: Path) -> None:
    """Ray writes a line of its own into the log as the command begins, which may fall into one of the command's."""
    wait = "until test -e %s; do sleep 0.1; done"
    begin, end = tmp_path / "begin", tmp_path / "end"
    each = job("partial", f"{wait % begin}; echo line; printf be; {wait % end}; printf gun")
    backend, lines = place(head), []
    backend.start(each)
    until(lambda: any("Running entrypoint" in line for line in text(place(head), each.name)))
    begin.touch()
    until(lambda: "line" in text(place(head), each.name))
    assert text(place(head), each.name)[-1] == "line"
    end.touch()
    assert follow(backend, each.name, print, lines.append, 20.0).code == OK
    assert lines[-2:] == ["line", "begun"]


def test_the_longer_a_log_the_seldomer_it_is_fetched(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the whole of it comes each time; once the job has ended it comes at once."""
    each = job("long", f"seq 1000; until test -e {tmp_path}/go; do sleep 0.1; done; echo end")
    monkeypatch.setattr(ray, "LOG_SECONDS", 0.0)
    often, seldom = place(head), place(head)
    often.start(each)
    until(lambda: "1000" in text(often, each.name))
    monkeypatch.setattr(ray, "LOG_CHARACTERS", 1)
    assert "1000" in text(seldom, each.name)
    assert text(seldom, each.name) == [], "its next time is in an hour"
    (tmp_path / "go").touch()
    until(lambda: often.state(each.name).code == OK)
    assert "end" in text(seldom, each.name)
    assert "end" in text(seldom, each.name)


def test_a_lost_head_is_waited_for_and_the_job_begun_again(tmp_path: Path) -> None:
    """A new head knows no old jobs: what ran on the old one went with it, so that none runs twice at once."""
    lines: list[str] = []
    with Head() as own:
        until(lambda: own.ready)
        count = f"echo x >> {tmp_path}/runs; for i in 1 2 3; do echo run $(wc -l < {tmp_path}/runs) line $i; done"
        each = job("again", f"{count}; while ! test -e {tmp_path}/go; do sleep 0.1; done")
        backend = place(own, retries=1)
        backend.start(each)
        ends: list[State] = []
        waiting = threading.Thread(target=lambda: ends.append(follow(backend, each.name, print, lines.append, 60.0)))
        waiting.start()
        until(lambda: "run 1 line 3" in lines)
        own.kill()
        own.start()
        until(lambda: (tmp_path / "runs").read_text() == "x\nx\n")
        (tmp_path / "go").touch()
        waiting.join()
        assert [found.code for found in ends] == [OK]
        shown = [line for line in lines if line.startswith("run")]
        assert shown == [f"run {i} line {j}" for i in (1, 2) for j in (1, 2, 3)], "each run's from its beginning"
        onlooker = place(own)
        assert onlooker.state(each.name).code == OK
        own.kill()
        own.start()
        until(lambda: own.ready)
        assert follow(backend, each.name, print, print, 20.0).code == LOST, "no more retries are left"
        found = follow(onlooker, each.name, print, print, 20.0)
        assert (found.code, found.reason) == (LOST, "HeadLost"), "who only follows cannot submit it again"
        with pytest.raises(Misuse, match="again: no such job"):
            place(own).state(each.name)
    with pytest.raises(Unreachable, match="does not answer"):
        backend.state(each.name)


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (401, "", "answers 401: set RAY_AUTH_TOKEN"),
        (403, "", "answers 403: set RAY_AUTH_TOKEN"),
        (200, "<html>Log in</html>", r"address=http://\S+ is not a Ray dashboard \(it answers text/html\)"),
        (200, "", "is not a Ray dashboard"),
        (200, '"pong"', "is not a Ray dashboard"),
    ],
)
def test_a_users_mistake_is_one_until_a_job_was_seen(
    head: Head, answer: Callable[..., None], status: int, said: str, told: str
) -> None:
    """A token that expired while a job runs does not end it."""
    follower, fresh, each = place(head), place(head), job("seen", "true")
    run(head, each)
    assert follower.state(each.name).code == OK
    answer(status, said)
    for ask in (lambda: fresh.start(each), fresh.jobs, lambda: fresh.state(each.name), lambda: fresh.cancel(each.name)):
        with pytest.raises(Misuse, match=told):
            ask()
    for ask in (lambda: follower.state(each.name), lambda: list(follower.logs(each.name, None))):
        with pytest.raises(Unreachable, match=told) as error:
            ask()
        assert error.value.status == status


def test_what_the_cluster_refuses_is_told_in_its_words(head: Head, answer: Callable[..., None]) -> None:
    backend, each = place(head), job("refused", "true")
    run(head, each)
    asks: list[tuple[str, Callable[[], object]]] = [
        ("GET", lambda: backend.state(each.name)),
        ("GET", backend.jobs),
        ("GET", lambda: list(backend.logs(each.name, None))),
        ("GET", lambda: backend.start(each)),
        ("POST", lambda: backend.cancel(each.name)),
        ("POST", lambda: backend.start(job("new", "true"))),
        ("DELETE", lambda: place(head, again=True).start(each)),
    ]
    for method, ask in asks:
        answer(422, "Traceback:\n  ...\nValueError: no room for it\n", method)
        with pytest.raises(Misuse, match="ValueError: no room for it"):
            ask()

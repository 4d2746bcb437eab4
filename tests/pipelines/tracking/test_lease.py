"""One retraining at a time, and what was begun is gone on with, whoever dies."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import Failure, Misuse, Refused
from pipelines.tracking import audit, holder, lease, server
from pipelines.tracking.lease import DEAD, DONE, FAILED, LEFT, OPEN, Busy, Lease
from pipelines.tracking.registry import RETRAININGS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every holder as on another machine: whether its process is there cannot be seen."""
    monkeypatch.setattr(holder, "gone", lambda mark: False)


def states(uri: str, name: str) -> list[str]:
    return [record.state for record in audit.records(uri, name, RETRAININGS)]


def wait(until: Callable[[], bool]) -> None:
    while not until():  # the test's own time limit ends it
        time.sleep(0.02)


@pytest.mark.usefixtures("elsewhere")
def test_one_at_a_time_and_the_other_is_told_who(uri, name):
    with Lease(uri, name) as first:
        assert first.earlier == []
        with pytest.raises(Busy, match=f"record 1, by {holder.who()}") as caught, Lease(uri, name):
            pytest.fail("both have it")
        assert caught.value.record == first.record
        assert states(uri, name) == [OPEN, LEFT]
    with Lease(uri, name) as second:
        assert [(each.number, each.state) for each in second.earlier] == [(1, DONE)]
        assert second.record.number == 3
    assert states(uri, name) == [DONE, LEFT, DONE]
    assert [record.number for record in lease.records(uri, name)] == [1, 3]
    assert audit.is_record(name + RETRAININGS)


def test_another_model_is_not_waited_for(tracking_uri, name):
    with Lease(tracking_uri, name), Lease(tracking_uri, f"{name}-2"):
        pass


@pytest.mark.parametrize(
    ("error", "state"), [(Refused, DONE), (Misuse, FAILED), (ValueError, FAILED), (KeyboardInterrupt, FAILED)]
)
def test_how_a_block_ends_is_written_down(tracking_uri, name, error, state):
    def works() -> None:
        with Lease(tracking_uri, name) as mine:
            mine.note({"plan": {}})
            raise error("as it was")

    with pytest.raises(error, match="as it was"):
        works()
    assert states(tracking_uri, name) == [state]
    found = lease.unfinished(lease.records(tracking_uri, name))
    assert (found is not None) is (state == FAILED)


def test_only_the_last_is_gone_on_with(tracking_uri, name):
    assert lease.unfinished(lease.records(tracking_uri, name)) is None

    def fails(facts: dict[str, Any]) -> None:
        with Lease(tracking_uri, name) as mine:
            mine.note(facts)
            raise ValueError("no")

    for facts in ({"plan": {}}, {"findings": "x"}):  # what came to no plan is nothing to go on with, and hides nothing
        with pytest.raises(ValueError, match="no"):
            fails(facts)
    with Lease(tracking_uri, name) as third:
        assert lease.unfinished(third.earlier) == third.earlier[0]
        third.note({"plan": {}})
        assert lease.unfinished(lease.records(tracking_uri, name)).number == 3
    assert lease.unfinished(lease.records(tracking_uri, name)) is None


def test_facts_are_kept_and_so_is_the_page(uri, name):
    """MLflow's databases hold 5,000 characters of it."""
    with Lease(uri, name) as held:
        held.note({"plan": {"turn": 0}, "version": 3})
        held.note({"outcome": "promoted"}, "see https://me:hunter2@host/ " + "x" * 6000)
        assert held.record.text.startswith("see https://***@host/ xxx")
        held.note({"said": "digits/3 is the champion"})
    (record,) = lease.records(uri, name)
    assert record.facts == {
        "plan": {"turn": 0},
        "version": 3,
        "outcome": "promoted",
        "said": "digits/3 is the champion",
    }
    assert record.text == held.record.text
    assert (record.state, record.what) == (DONE, "retrain")


def test_a_holder_shows_that_it_lives_and_leaves_the_page_as_it_is(tracking_uri, name, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with Lease(tracking_uri, name) as held:
        for text in ("", "the gate's table"):
            if text:
                held.note({}, text)
            at = lease.records(tracking_uri, name)[0].changed
            for _ in range(2):  # the second is begun after the note
                wait(lambda at=at: lease.records(tracking_uri, name)[0].changed > at)
                at = lease.records(tracking_uri, name)[0].changed
    (record,) = lease.records(tracking_uri, name)
    assert (record.state, record.text) == (DONE, "the gate's table")
    assert record.changed > record.at


HOLD = "import sys, time; from pipelines.tracking.lease import Lease; held = Lease(*sys.argv[1:]).__enter__(); "
HOLD += "held.note({'plan': {}, 'version': 3}); print('held', flush=True); time.sleep(600)"


def test_who_is_killed_is_followed_at_once(mlflow_server, name):
    uri = mlflow_server.uri
    command = [sys.executable, "-c", HOLD, uri, name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Busy, match="record 1"), Lease(uri, name):
            pass
        process.kill()
    with Lease(uri, name) as mine:
        left = lease.unfinished(mine.earlier)
        assert left
        assert (left.number, left.state, left.facts) == (1, DEAD, {"plan": {}, "version": 3})
    assert states(uri, name) == [DEAD, LEFT, DONE]


@pytest.mark.usefixtures("elsewhere")
def test_who_was_silent_for_too_long_is_followed_and_stops(tracking_uri, name, monkeypatch):
    def sleeps() -> None:
        with Lease(tracking_uri, name) as slept:
            monkeypatch.setattr(lease, "LIFE", 0.05)
            time.sleep(0.1)
            with Lease(tracking_uri, name) as mine:
                assert [(each.number, each.state) for each in mine.earlier] == [(1, DEAD)]
                slept.note({"version": 3})

    with pytest.raises(Failure, match=rf"record 1 of {name}.retrainings: .* another process took over; run the same"):
        sleeps()
    assert lease.records(tracking_uri, name)[0].facts == {}


@pytest.mark.parametrize("answer", [signal.default_int_handler, signal.SIG_IGN])
def test_who_was_taken_over_is_stopped_whatever_it_waits_for(tracking_uri, name, monkeypatch, answer):
    """Also where a shell has it ignore SIGINT, as it does what is run in the background."""

    def waits() -> None:
        with Lease(tracking_uri, name) as mine:
            audit.settle(tracking_uri, name, mine.record, DEAD, kind=RETRAININGS)
            threading.Event().wait()

    monkeypatch.setattr(lease, "BEAT", 0.02)
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, lease.WAKE)]
    signal.signal(signal.SIGINT, answer)
    try:
        with pytest.raises(Failure, match="another process took over"):
            waits()
        assert signal.getsignal(lease.WAKE) == handlers[1][1]
    finally:
        signal.signal(*handlers[0])


def test_who_cannot_reach_the_registry_stops_before_another_may_take_over(tracking_uri, name, monkeypatch):
    def waits() -> None:
        with Lease(tracking_uri, name) as mine:
            monkeypatch.setattr(lease, "LIFE", 0.4)
            mine._uri = "http://127.0.0.1:9"
            threading.Event().wait()

    monkeypatch.setitem(server._LIMITS, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with pytest.raises(Failure, match=r"the registry did not answer for 0\.2 s"):
        waits()
    assert states(tracking_uri, name) == [lease.OPEN]


def _worker(uri: str, names: list[str], barrier: Barrier, said: Any) -> None:
    for name in names:
        barrier.wait(timeout=120)
        try:
            with Lease(uri, name) as mine:
                said.put((name, "works", mine.record.number))
                barrier.wait(timeout=120)
        except Busy as busy:
            said.put((name, "left", busy.record.number))
            barrier.wait(timeout=120)
        except Failure as error:
            said.put((name, str(error), 0))


@pytest.mark.parametrize("uri", ["sqlite", "server"], indirect=True)
def test_of_two_at_once_one_works(uri):
    names = [f"race-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    context = multiprocessing.get_context("spawn")
    barrier, said = context.Barrier(2), context.Queue()
    both = [context.Process(target=_worker, args=(uri, names, barrier, said)) for _ in range(2)]
    for process in both:
        process.start()
    found = [said.get(timeout=120) for _ in range(2 * len(names))]
    for process in both:
        process.join(timeout=60)
    for name in names:
        both_said = sorted((what, number) for named, what, number in found if named == name)
        assert both_said == [("left", 1), ("works", 1)]
        assert states(uri, name) == [DONE, LEFT]

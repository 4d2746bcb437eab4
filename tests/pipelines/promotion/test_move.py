"""The champion moves once, whole, by one mover, whatever dies on the way."""

import json
import multiprocessing
import subprocess
import sys
import uuid
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import Failure, Misuse, Refused
from pipelines.promotion import move
from pipelines.tracking import audit, holder, server, versions
from tests.pipelines.promotion import movers

ROOT = Path(__file__).parents[3]
WRITES = 8
"""Of a promotion whose candidate is the challenger: its record, that it is its turn (two tags), the tags of
the new champion, three aliases, the record's end."""


def aliases(uri: str, name: str) -> tuple[int | None, int | None, int | None]:
    there = versions.aliases(uri, name)
    return tuple(there.get(alias) for alias in ("champion", "previous", "challenger"))


def states(uri: str, name: str) -> list[str]:
    return [record.state for record in audit.records(uri, name)]


def test_a_move_leaves_aliases_tags_and_a_record(uri, name):
    movers.model(uri, name)
    versions.point(uri, name, "challenger", 2)
    movers.go(uri, name, 1, 2)
    assert aliases(uri, name) == (2, 1, None)
    movers.go(uri, name, 2, 4)
    assert aliases(uri, name) == (4, 2, None)
    first, second = audit.records(uri, name)
    assert (first.what, first.state, second.state) == ("promote", "done", "done")
    assert (first.facts["before"], first.facts["after"]) == (1, 2)
    assert first.text == "2 for 1"
    assert first.by == holder.who()
    assert 0 < first.at <= second.at
    assert versions.find(uri, name, 2).tags["promotion.record"] == "1"
    assert [version.aliases for version in versions.listed(uri, name)] == [(), ("previous",), (), ("champion",)]
    assert audit.is_record(f"{name}.promotions")
    assert f"{name}.promotions" in versions.names(uri)


def test_who_comes_second_is_told_who_and_why(uri, name):
    movers.model(uri, name)
    movers.go(uri, name, 1, 2)
    with pytest.raises(Refused, match=rf"was version 1 when .* is version 2 now, moved by .*@.*, record 1 of {name}"):
        move.move(uri, movers.plan(uri, name, 1, 3), {}, "", {})
    assert aliases(uri, name) == (2, 1, None)
    versions.point(uri, name, "champion", 4)
    with pytest.raises(Refused, match="is version 4 now, moved by hand"):
        move.move(uri, movers.plan(uri, name, 2, 3), {}, "", {})
    assert states(uri, name) == ["done", "lost", "lost"]


class Died(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("at", range(WRITES))
def test_whatever_a_death_interrupts_is_finished_or_undone(tracking_uri, name, at, monkeypatch):
    movers.model(tracking_uri, name)
    for alias, number in (("previous", 4), ("challenger", 2)):
        versions.point(tracking_uri, name, alias, number)

    def die(number: int) -> None:
        if number == at:
            raise Died

    with monkeypatch.context() as patch:
        for module, function in ((versions, "point"), (versions, "tag"), (audit, "append")):
            patch.setattr(module, function, getattr(module, function))
        movers.before_writes(die)
        with pytest.raises(Died):
            movers.go(tracking_uri, name, 1, 2)
    left = audit.records(tracking_uri, name)
    finished = move.tidy(tracking_uri, name)
    assert [record.state for record in finished] == (["done"] if at > 5 else [])
    assert bool(left) == (at > 0)
    assert aliases(tracking_uri, name) in ((1, 4, 2), (2, 1, None))
    assert "open" not in states(tracking_uri, name)
    if aliases(tracking_uri, name) == (1, 4, 2):
        movers.go(tracking_uri, name, 1, 2)
    assert aliases(tracking_uri, name) == (2, 1, None)


@pytest.mark.parametrize("at", [2, 5, 6])
def test_the_same_command_after_a_kill_ends_what_was_begun(mlflow_server, name, at):
    uri = mlflow_server.uri
    movers.model(uri, name)
    command = [sys.executable, "-m", "tests.pipelines.promotion.movers", uri, name, "1", "2"]
    killed = subprocess.run([*command, str(at)], cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert states(uri, name) == ["open" if at == 2 else "moving"]
    again = subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True, text=True)
    finished = at == 6  # the champion had been moved: the second command finds nothing to move any more
    assert again.stdout.startswith("refused" if finished else "record 2"), again.stdout + again.stderr
    assert aliases(uri, name) == (2, 1, None)
    assert states(uri, name) == (["done", "lost"] if finished else ["undone", "done"])


def test_a_living_mover_is_waited_for_and_a_slow_one_stops_itself(tracking_uri, name, monkeypatch):
    movers.model(tracking_uri, name)
    seen: list[int] = []

    def recover(record: audit.Record, live: Any) -> str:
        live()
        seen.append(record.number)
        return audit.UNDONE

    def turn(after: int) -> audit.Turn:
        return audit.turn(tracking_uri, name, f"models:/{name}/{after}", "promote", {}, "", recover)[0]

    slow = turn(2)
    slow.live()
    monkeypatch.setattr(holder, "gone", lambda mark: False)  # as on another machine
    monkeypatch.setattr(audit, "LIFE", 4.0)
    monkeypatch.setattr(audit, "STEP", 0.4)
    next_one = turn(3)
    assert seen == [slow.record.number]
    assert next_one.record.number == 3  # the second had waited for too long to begin
    next_one.live()
    with pytest.raises(Failure, match=r"record 1: this move has taken more than 3.6 s, or another process ended it"):
        slow.live()


def test_one_that_others_gave_up_must_not_write(tracking_uri, name, monkeypatch):
    movers.model(tracking_uri, name)
    point = versions.point

    def slept(uri: str, name: str, alias: str, number: int | None) -> None:
        point(uri, name, alias, number)
        (record,) = audit.records(uri, name)
        if alias == "previous" and record.unsettled:  # another machine found it too old, undid it, and moved on
            audit.settle(uri, name, record, move.recover(uri, name, record, lambda: None))
            point(uri, name, "champion", 4)

    with monkeypatch.context() as patch:
        patch.setattr(versions, "point", slept)
        with pytest.raises(Failure, match="another process ended it"):
            movers.go(tracking_uri, name, 1, 2)
    assert versions.aliases(tracking_uri, name)["champion"] == 4


def test_the_dead_are_told_from_the_living(tracking_uri, name):
    movers.model(tracking_uri, name)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = audit.append(tracking_uri, name, f"models:/{name}/1", "promote", audit.OPEN, {})
    theirs = replace(record, process=holder._mark(process.pid))
    assert not holder.gone(theirs.process)
    assert holder.gone(record.process)  # this process does one thing at a time: it is not at work on an older record
    assert not holder.gone(theirs.process + "0")  # of another machine, or container
    process.kill()
    process.communicate()
    assert holder.gone(theirs.process)
    assert not holder.gone("")


def test_what_is_written_down_holds_no_secret_and_fits(tracking_uri, name):
    movers.model(tracking_uri, name)
    text = "see https://me:hunter2@host/x " + "a" * 6000
    record = audit.append(tracking_uri, name, f"models:/{name}/1", "promote", audit.REFUSED, {"token": "hunter2"}, text)
    (read,) = audit.records(tracking_uri, name)
    assert "hunter2" not in json.dumps(read.facts) + read.text
    assert len(read.text) <= audit.LONGEST
    assert read == record


def _mover(uri: str, names: list[str], after: int, barrier: Barrier, said: Any) -> None:
    plans = [movers.plan(uri, name, 1, after) for name in names]
    for name, _ in zip(names, plans, strict=True):
        barrier.wait(timeout=120)
        said.put((name, after, movers.go(uri, name, 1, after)))


def test_of_two_at_once_one_wins_and_the_other_is_told(uri):
    names = [f"race-{uuid.uuid4().hex[:8]}" for _ in range(4)]
    for name in names:
        movers.model(uri, name)
    context = multiprocessing.get_context("spawn")
    barrier, said = context.Barrier(2), context.Queue()
    both = [context.Process(target=_mover, args=(uri, names, after, barrier, said)) for after in (2, 3)]
    for process in both:
        process.start()
    found = [said.get(timeout=60) for _ in range(2 * len(names))]
    for process in both:
        process.join(timeout=60)
    for name in names:
        (loser,) = [text for named, _, text in found if named == name and text.startswith("refused")]
        (winner,) = [after for named, after, text in found if named == name and text.startswith("record")]
        assert f"is version {winner} now, moved by {holder.who()}" in loser
        assert aliases(uri, name) == (winner, 1, None)
        assert sorted(states(uri, name)) == ["done", "lost"]


def test_a_champion_moved_by_hand_is_noticed_once(tracking_uri, name):
    movers.model(tracking_uri, name)
    assert move.by_hand(tracking_uri, name) is None  # nothing is known of how the first came there
    movers.go(tracking_uri, name, 1, 2)
    assert move.by_hand(tracking_uri, name) is None
    versions.point(tracking_uri, name, "champion", 4)
    assert "is version 4, and the last record (1) made it version 2: it was moved by hand" in (
        move.by_hand(tracking_uri, name) or ""
    )
    assert move.by_hand(tracking_uri, name) is None
    versions.point(tracking_uri, name, "champion", None)
    assert "is none" in (move.by_hand(tracking_uri, name) or "")
    assert states(tracking_uri, name) == ["done", "noted", "noted"]


def test_a_registry_that_is_gone_and_a_record_that_is_none_are_told(tracking_uri, name):
    movers.model(tracking_uri, name)
    with pytest.raises(
        Failure, match=r"did not find .*see to the server and the credentials, and run the same command"
    ):
        versions.aliases("http://127.0.0.1:9", name)
    movers.go(tracking_uri, name, 1, 2)
    server.client(tracking_uri).delete_model_version_tag(f"{name}.promotions", "1", "holdfast.state")
    with pytest.raises(Misuse, match=rf"{name}.promotions version 1 is no record of holdfast"):
        audit.records(tracking_uri, name)

"""Moving the alias ``champion``: one mover at a time, finished or undone by the next if this one dies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Refused
from pipelines.tracking import audit, versions
from pipelines.tracking.registry import RECORDS
from pipelines.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS, ROLLED_BACK


@dataclass(frozen=True)
class Plan:
    """Of one move in ``name``, a promote or a rollback: ``champion`` from version ``before`` (None: there is none) to
    ``after``, and ``previous`` to ``later``."""

    name: str
    what: str
    before: int | None
    after: int
    later: int | None


def move(
    uri: str,
    plan: Plan,
    facts: Mapping[str, Any],
    text: str,
    tags: Mapping[str, str],
    before_tags: Mapping[str, str] | None = None,
) -> audit.Record:
    """Carry out ``plan`` if the champion is still ``plan.before``; ``tags`` go on the new champion, ``before_tags`` on
    the old one.

    The record is written first and settled last.  In between, each step is one request that sets what the record says,
    and ``recover`` can tell from the aliases how far it came.
    Errors: ``Refused`` if somebody else moved the champion; ``Failure`` if the registry does not take a step.
    """
    name, planned = plan.name, {"before": plan.before, "after": plan.after, "later": plan.later}
    about = f"models:/{name}/{plan.after}"
    turn, _ = audit.turn(uri, name, about, plan.what, {**facts, **planned}, text, _recovery(uri, name))
    there = versions.aliases(uri, name)
    if there.get(CHAMPION) != plan.before:
        said = _who_moved(uri, plan, there.get(CHAMPION))
        audit.settle(uri, name, turn.record, audit.LOST, {"lost": said})
        raise Refused(said)
    turn.live()
    # What `previous` is now, whoever was recovered meanwhile: an undo gives it back.
    audit.settle(uri, name, turn.record, audit.MOVING, {"earlier": there.get(PREVIOUS)})
    versions.tag(uri, name, plan.after, {**tags, ROLLED_BACK: "", "promotion.record": str(turn.record.number)})
    if before_tags and plan.before is not None:
        versions.tag(uri, name, plan.before, before_tags)
    turn.live()
    versions.point(uri, name, PREVIOUS, plan.later)
    turn.live()
    versions.point(uri, name, CHAMPION, plan.after)
    _drop_challenger(uri, name, plan.after)
    audit.settle(uri, name, turn.record, audit.DONE)
    return turn.record


def tidy(uri: str, name: str) -> list[audit.Record]:
    """Finish or undo what dead processes left, before anything is decided from the aliases; what was finished."""
    left = [record for record in audit.records(uri, name) if record.unsettled]
    if not left:
        return []
    about = f"models:/{name}/{versions.listed(uri, name)[-1].number}"
    turn, recovered = audit.turn(uri, name, about, "tidy", {"after": None}, "", _recovery(uri, name))
    audit.settle(uri, name, turn.record, audit.TIDIED)
    ended = {record.number: record for record in audit.records(uri, name)}
    return [ended[record.number] for record in recovered if ended[record.number].state == audit.DONE]


def _recovery(uri: str, name: str) -> audit.Recover:
    return lambda record, live: recover(uri, name, record, live)


def recover(uri: str, name: str, record: audit.Record, live: Callable[[], None]) -> str:
    """Finish a move that came as far as the champion, undo one that did not; what came of it."""
    facts, there = record.facts, versions.aliases(uri, name)
    if record.state != audit.MOVING:  # it was still waiting: nothing was written
        return audit.UNDONE
    if there.get(CHAMPION) == facts["after"]:
        live()
        versions.point(uri, name, PREVIOUS, facts["later"])
        live()
        _drop_challenger(uri, name, facts["after"])
        return audit.DONE
    if there.get(CHAMPION) == facts["before"] and there.get(PREVIOUS) == facts["later"]:
        live()
        versions.point(uri, name, PREVIOUS, facts["earlier"])
    return audit.UNDONE


def _drop_challenger(uri: str, name: str, after: int) -> None:
    if versions.aliases(uri, name).get(CHALLENGER) == after:
        versions.point(uri, name, CHALLENGER, None)


def _who_moved(uri: str, plan: Plan, here: int | None) -> str:
    before = f"version {plan.before}" if plan.before else "none"
    now = f"version {here}" if here else "none"
    by = "by hand, in the registry"
    for record in reversed(audit.records(uri, plan.name)):
        if record.state == audit.DONE and record.facts.get("after") == here:
            by = f"by {record.by}, record {record.number} of {plan.name}{RECORDS}"
            break
    return (
        f"the champion of {plan.name} was {before} when this was decided and is {now} now, moved {by}; nothing was "
        "moved here: run the same command again to compare with the new champion"
    )


def by_hand(uri: str, name: str, note: bool = True) -> str | None:
    """What is to be said of a champion that no record put there; ``note``: it is recorded, once."""
    every = audit.records(uri, name)
    there = versions.aliases(uri, name).get(CHAMPION)
    moves = [r for r in every if r.state in (audit.DONE, audit.NOTED)]
    if not moves or any(r.unsettled for r in every) or moves[-1].facts["after"] == there:
        return None
    if len(audit.records(uri, name)) != len(every):  # somebody moved it between the two looks
        return None
    last, now = moves[-1], f"version {there}" if there else "none"
    if note:
        about = f"models:/{name}/{there or versions.listed(uri, name)[-1].number}"
        found = {"before": last.facts["after"], "after": there}
        text = f"The champion was found to be {now}; no command put it there."
        audit.append(uri, name, about, "by hand", audit.NOTED, found, text)
    made = f"version {last.facts['after']}" if last.facts["after"] else "none"
    return f"the champion of {name} is {now}, and the last record ({last.number}) made it {made}: it was moved by hand"


def champions(uri: str, name: str) -> list[int]:
    """Every version that was champion once, as the records tell, the latest last."""
    found = [
        number
        for record in audit.records(uri, name)
        if record.state in (audit.DONE, audit.NOTED)
        for number in (record.facts["before"], record.facts["after"])
        if number
    ]
    return list(dict.fromkeys(reversed(found)))[::-1]

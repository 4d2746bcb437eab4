"""Moving the alias ``champion``: one mover at a time, finished or undone by the next if this one dies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Refused
from pipelines.tracking import audit, versions
from pipelines.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS


@dataclass(frozen=True)
class Plan:
    """Of one move in ``name``, a promote or a rollback: ``champion`` from version ``before`` (None: there is none) to
    ``after``, and ``previous`` from ``earlier`` to ``later``."""

    name: str
    what: str
    before: int | None
    after: int
    earlier: int | None
    later: int | None

    def facts(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("before", "after", "earlier", "later")}


def move(uri: str, plan: Plan, facts: Mapping[str, Any], text: str, tags: Mapping[str, str]) -> audit.Record:
    """Carry out ``plan`` if the champion is still ``plan.before``; ``tags`` go on the new champion.

    The record is written first and settled last.  In between, each step is one request that sets what ``facts`` say,
    and ``recover`` can tell from the aliases how far it came.
    Errors: ``Refused`` if somebody else moved the champion; ``Failure`` if the registry does not take a step.
    """
    turn = audit.turn(
        uri,
        plan.name,
        f"models:/{plan.name}/{plan.after}",
        plan.what,
        {**plan.facts(), **facts},
        text,
        lambda record: recover(uri, plan.name, record),
    )
    here = versions.aliases(uri, plan.name).get(CHAMPION)
    if here != plan.before:
        said = _who_moved(uri, plan, here)
        audit.settle(uri, plan.name, turn.record, audit.LOST, {"lost": said})
        raise Refused(said)
    turn.live()
    versions.tag(uri, plan.name, plan.after, {**tags, "promotion.record": str(turn.record.number)})
    turn.live()
    versions.point(uri, plan.name, PREVIOUS, plan.later)
    turn.live()
    versions.point(uri, plan.name, CHAMPION, plan.after)
    _drop_challenger(uri, plan.name, plan.after)
    audit.settle(uri, plan.name, turn.record, audit.DONE)
    return turn.record


def recover(uri: str, name: str, record: audit.Record) -> str:
    """Finish a move that came as far as the champion, undo one that did not; what came of it."""
    facts, there = record.facts, versions.aliases(uri, name)
    if there.get(CHAMPION) == facts["after"]:
        versions.point(uri, name, PREVIOUS, facts["later"])
        _drop_challenger(uri, name, facts["after"])
        return audit.DONE
    if there.get(CHAMPION) == facts["before"] and there.get(PREVIOUS) == facts["later"]:
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
            by = f"by {record.by}, record {record.number} of {plan.name}{audit.SUFFIX}"
            break
    return (
        f"the champion of {plan.name} was {before} when this was decided and is {now} now, moved {by}; nothing was "
        "moved here: run the same command again to compare with the new champion"
    )


def by_hand(uri: str, name: str) -> str | None:
    """What is to be said of a champion that no record put there; it is recorded, once."""
    there = versions.aliases(uri, name).get(CHAMPION)
    every = audit.records(uri, name)
    moves = [r for r in every if r.state in (audit.DONE, audit.NOTED)]
    if any(r.state == audit.OPEN for r in every) or not moves:
        return None
    last = moves[-1]
    if last.facts["after"] == there:
        return None
    now = f"version {there}" if there else "none"
    audit.append(
        uri,
        name,
        f"models:/{name}/{there or versions.listed(uri, name)[-1].number}",
        "by hand",
        audit.NOTED,
        {"before": last.facts["after"], "after": there},
        f"The champion was found to be {now}; no command put it there.",
    )
    return (
        f"the champion of {name} is {now}, and the last record ({last.number}) made it version {last.facts['after']}: "
        "it was moved by hand"
    )

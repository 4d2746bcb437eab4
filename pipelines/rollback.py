"""``holdfast rollback``: the previous champion again, in one command, with the reason written down."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from pipelines import outcome
from pipelines.errors import Misuse
from pipelines.promotion import artefact, move
from pipelines.promotion.move import Plan
from pipelines.tracking import audit, registry, server, versions
from pipelines.tracking.versions import CHAMPION, PREVIOUS


def rollback(config: Mapping[str, Any], console: Console) -> None:
    """Errors: ``Misuse`` if there is nothing to go back to, or it is not what was registered; ``Refused`` if somebody
    moved the champion meanwhile; ``Failure`` if the registry does not take it, which the same command finishes."""
    uri, name, reason = config["tracking"]["uri"], config["name"], config["reason"]
    registry.check_name(name, "name")
    outcome.check(config["json"])
    if not reason.strip():
        raise Misuse("reason= is empty: say why, it is written down with the move")
    server.check_there(uri)
    versions.aliases(uri, name)
    finished = [r for r in move.tidy(uri, name) if r.what == "rollback" and r.facts.get("reason") == reason]
    record = finished[-1] if finished else _rolled_back(uri, name, config["version"], reason)
    champion, back = record.facts["before"], record.facts["after"]
    outcome.leave({"name": name, "from": champion, "to": back, "record": record.number}, config["json"])
    for line in (
        f"rolled back: models:/{name}@{CHAMPION} is version {back} again, in place of {champion}",
        f"record {record.number} of {name}{registry.RECORDS}: {reason}",
    ):
        console.print(line, soft_wrap=True, markup=False)


def _rolled_back(uri: str, name: str, asked: int | None, reason: str) -> audit.Record:
    champion, back = _which(uri, name, asked)
    artefact.check(uri, name, back)
    plan = Plan(name, "rollback", champion, back, _before(uri, name, back))
    text = f"Version {champion} was taken back for version {back}: {reason}"
    return move.move(uri, plan, {"reason": reason}, text, {}, {versions.ROLLED_BACK: reason})


def _which(uri: str, name: str, asked: int | None) -> tuple[int, int]:
    """The champion, and the version that takes its place: one that was champion, since no gate is asked."""
    there = versions.aliases(uri, name)
    champion, back = there.get(CHAMPION), asked if asked is not None else there.get(PREVIOUS)
    if champion is None:
        raise Misuse(f"name={name} has no champion: there is nothing to roll back")
    known = [n for n in dict.fromkeys((*move.champions(uri, name), there.get(PREVIOUS))) if n not in (None, champion)]
    listed = ", ".join(map(str, known)) or "none"
    if back is None:
        raise Misuse(
            f"name={name} has no alias {PREVIOUS}: say which version is to be champion again, version=NUMBER; those "
            f"that were: {listed}"
        )
    if back == champion:
        raise Misuse(f"version={back} of {name} is the champion already; those that were: {listed}")
    versions.find(uri, name, back)
    if back not in known:
        raise Misuse(
            f"version={back} of {name} was never champion (those that were: {listed}): `holdfast promote` asks the gate"
        )
    return champion, back


def _before(uri: str, name: str, number: int) -> int | None:
    """The champion before ``number`` was: what ``previous`` meant then."""
    for record in reversed(audit.records(uri, name)):
        if record.state == audit.DONE and record.what == "promote" and record.facts["after"] == number:
            before = record.facts["before"]
            return int(before) if before else None
    return None

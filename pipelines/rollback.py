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
    moved the champion meanwhile; ``Failure`` if the registry does not take it."""
    uri, name = config["tracking"]["uri"], config["name"]
    registry.check_name(name)
    if not config["reason"].strip():
        raise Misuse("reason= is empty: say why, it is written down with the move")
    server.check_there(uri)
    with server.bounded():
        champion, back = _which(uri, name, config["version"])
        _sound(uri, name, back)
        there = versions.aliases(uri, name)
        plan = Plan(name, "rollback", champion, back, there.get(PREVIOUS), _before(uri, name, back))
        text = f"Version {champion} was taken back for version {back}: {config['reason']}"
        record = move.move(uri, plan, {"reason": config["reason"]}, text, {})
        versions.tag(uri, name, champion, {"rolled_back": config["reason"]})
    outcome.leave({"name": name, "from": champion, "to": back, "record": record.number}, config["json"])
    console.print(f"rolled back: models:/{name}@{CHAMPION} is version {back} again, in place of {champion}")
    console.print(f"record {record.number} of {name}{audit.SUFFIX}: {config['reason']}", markup=False)


def _which(uri: str, name: str, asked: int | None) -> tuple[int, int]:
    """The champion, and the version that takes its place."""
    there = versions.aliases(uri, name)
    champion, back = there.get(CHAMPION), asked or there.get(PREVIOUS)
    if champion is None:
        raise Misuse(f"name={name} has no champion: there is nothing to roll back")
    if back is None:
        raise Misuse(f"name={name} has no alias {PREVIOUS}: say which version is to be champion again, version=NUMBER")
    if back == champion:
        raise Misuse(f"version={back} of {name} is the champion already; give version=NUMBER")
    versions.find(uri, name, back)
    return champion, back


def _sound(uri: str, name: str, number: int) -> None:
    """In a hurry nothing is attacked, but what comes back must be what was registered, and load."""
    weighed = artefact.weigh(uri, name, number)
    if weighed.registered is not None and weighed.registered != weighed.digest:
        raise Misuse(
            f"models:/{name}/{number} is not what was registered (digest {weighed.digest[:12]}, registered "
            f"{weighed.registered[:12]}); give another version=NUMBER"
        )


def _before(uri: str, name: str, number: int) -> int | None:
    """The champion before ``number`` was: what ``previous`` meant then."""
    for record in reversed(audit.records(uri, name)):
        if record.state == audit.DONE and record.what == "promote" and record.facts["after"] == number:
            before = record.facts["before"]
            return int(before) if before else None
    return None

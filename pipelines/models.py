"""``holdfast models``: what is registered, with its numbers, aliases, doubts and where it comes from."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines import outcome
from pipelines.promotion import move
from pipelines.tracking import audit, server, versions
from pipelines.tracking.versions import Version


def models(config: Mapping[str, Any], console: Console) -> None:
    """Errors: ``Misuse`` for a name that is not registered; ``Failure`` if the registry does not answer."""
    uri, asked = config["tracking"]["uri"], config["name"]
    outcome.check(config["json"])
    server.check_there(uri)
    names = [asked] if asked else [name for name in versions.names(uri) if not audit.is_record(name)]
    found = {name: [_row(version) for version in reversed(versions.listed(uri, name))] for name in names}
    for name, rows in found.items():
        _show(name, rows, console)
        for said in _said(uri, name):
            console.print(f"[yellow]warning[/] {escape(said)}", soft_wrap=True)
    if not found:
        console.print("no model is registered: train with register_as=NAME")
    outcome.leave({"models": found}, config["json"])


def _row(version: Version) -> dict[str, Any]:
    tags = version.tags
    return {
        "version": version.number,
        "aliases": list(version.aliases),
        "made": datetime.fromtimestamp(version.made / 1000, UTC).isoformat(timespec="seconds"),
        "recipe": tags.get("recipe"),
        "threat": tags.get("threat"),
        "clean_accuracy": _number(tags.get("metrics.clean_accuracy")),
        "robust_accuracy": _number(tags.get("metrics.robust_accuracy")),
        "evaluations": _evaluations(tags),
        "gates": _gates(tags),
        "rolled_back": tags.get(versions.ROLLED_BACK) or None,
        "training_doubts": tags.get("doubts"),
        "run_id": version.run_id,
        "data": tags.get("data_digest"),
        "artefact": tags.get("holdfast.artefact"),
        "copied_from": tags.get(versions.COPIED),
    }


def _gates(tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the gate of each champion said of it."""
    found: dict[str, dict[str, str]] = {}
    for key, value in sorted(tags.items()):
        target, _, what = key.removeprefix("gate.").rpartition(".")
        if key.startswith("gate.") and target:
            found.setdefault(target, {})[what] = value
    return found


_EVALUATION = {"attack", "n", "clean", "robust", "beyond", "doubts", "date"}


def _evaluations(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """The oldest first; those whose tag can be read, as anybody may write tags."""
    found = []
    for key, tag in tags.items():
        if key.startswith("evaluation."):
            try:
                said = json.loads(tag)
            except ValueError:
                continue
            if isinstance(said, dict) and said.keys() >= _EVALUATION:
                found.append({"name": key.removeprefix("evaluation."), **said})
    return sorted(found, key=lambda evaluation: str(evaluation["date"]))


_COLUMNS = (
    "version",
    "aliases",
    "recipe",
    "clean",
    "PGD",
    "AutoAttack",
    "beyond",
    "at",
    "gate",
    "doubts",
    "run",
    "made",
)


def _show(name: str, rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=escape(name), title_justify="left", box=None, pad_edge=False)
    for column in _COLUMNS:
        numbers = column in ("version", "clean", "PGD", "AutoAttack", "beyond")
        table.add_column(column, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, _cells(row, name)))
    console.print(table)


def _cells(row: Mapping[str, Any], name: str) -> Iterator[str]:
    """Several threats stand below one another."""
    judged = [e for e in row["evaluations"] if str(e["attack"]["name"]).startswith("AutoAttack")]
    newest: dict[str, Any] = judged[-1] if judged else {"n": 1, "robust": {}, "beyond": {}, "doubts": ""}
    n, doubts = newest["n"], newest["doubts"]
    yield str(row["version"])
    yield ", ".join(row["aliases"])
    yield row["recipe"] or ""
    yield _share(row["clean_accuracy"])
    yield _share(row["robust_accuracy"])
    yield "\n".join(_share(right / n) for right in newest["robust"].values())
    yield "\n".join(_share(right / n) for right in newest["beyond"].values())
    yield "\n".join(f"{threat}, n {n:,}" for threat in newest["robust"]) or row["threat"] or ""
    yield "rolled back" if row["rolled_back"] else _gate(row["gates"].get(name))
    yield doubts if isinstance(doubts, str) else ", ".join(doubts) or "none"
    yield (row["run_id"] or "")[:8]
    yield row["made"][:10]


def _gate(gate: Mapping[str, str] | None) -> str:
    if gate is None:
        return ""
    return "passed" if gate.get("passed") == "true" else "refused"


def _said(uri: str, name: str) -> Iterator[str]:
    if hand := move.by_hand(uri, name, note=False):
        yield hand
    for record in audit.records(uri, name):
        if record.unsettled:
            yield (
                f"record {record.number}: {record.by} began a {record.what} of {name} and has not ended it; the next "
                "promote or rollback finishes or undoes it"
            )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"

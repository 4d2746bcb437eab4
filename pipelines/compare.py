"""``holdfast compare A B``: two evaluations of the same examples, and whether the difference is more than chance."""

import json as script
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines import outcome
from pipelines.errors import Misuse, first_line
from pipelines.evaluation import joining
from pipelines.evaluation.comparison import AUTOATTACK, BEYOND, CLEAN, Measure, Only, measure
from pipelines.evaluation.records import WRONG, Records, located, read
from pipelines.redact import redact_text
from pipelines.storage import files

EVALUATION = "evaluation.json"
SHOWN = 3
"""Classes named where they differ."""


@dataclass(frozen=True)
class Side:
    """One of both evaluations; ``doubts``: those its report states, None where none were looked for."""

    path: str
    name: str
    model: dict[str, Any]
    attack: dict[str, Any]
    doubts: tuple[str, ...] | None


@dataclass(frozen=True)
class Comparison:
    """``n``: examples in both; ``only_a``, ``only_b``: examples in one alone, which are left out; ``warnings``: what a
    reader must know first.  ``measures``: clean, then a threat after the other."""

    a: Side
    b: Side
    n: int
    only_a: int
    only_b: int
    warnings: tuple[str, ...]
    measures: tuple[Measure, ...]


def compare(a: str, b: str, console: Console, json: str | None = None) -> Comparison:
    """Print how ``b`` differs from ``a``, and leave it at ``json``, whole or not at all.

    ``a``, ``b``: folders that ``holdfast evaluate`` left, records files, or ``s3://`` URIs of either.
    Errors: ``Misuse`` for what is no evaluation, and for two that have too little in common.
    """
    outcome.check(json)
    ours, theirs = read(a), read(b)
    joining.check(ours, theirs)
    measures = tuple(_measures(ours, theirs))
    sides = _side(ours, a), _side(theirs, b)
    only_a, only_b = joining.unmatched(ours, theirs)
    warnings = (*_warnings(*sides, only_a, only_b), *joining.partly(ours, theirs))
    found = Comparison(*sides, measures[0].paired.n, only_a, only_b, warnings, measures)
    show(found, console)
    outcome.leave(asdict(found), json)
    return found


def _measures(a: Records, b: Records) -> Iterator[Measure]:
    every, *threats = joining.join(a, b)
    yield measure(every, CLEAN)
    for joined in threats:
        yield measure(joined, AUTOATTACK)
        if joined.beyond:
            yield measure(joined, BEYOND)


def show(found: Comparison, console: Console) -> None:
    def say(line: str) -> None:
        console.print(escape(line), soft_wrap=True)

    for letter, side in (("A", found.a), ("B", found.b)):
        say(f"{letter}  {side.name}: {side.model['source']}, {side.attack['name']}")
    for warning in found.warnings:
        console.print(f"[yellow]note[/] {escape(warning)}", soft_wrap=True)
    console.print()
    console.print(_table(found))
    for each in found.measures:
        say(f"\n{each.sentence}.")
        for line in _details(each):
            say(f"  {line}")


def _table(found: Comparison) -> Table:
    table = Table(title=f"{found.n} examples", title_justify="left", box=None)
    table.add_column("")
    for column in ("A", "B", "only A", "only B", "B - A in points, 95 %", "McNemar's p"):
        table.add_column(column, justify="right")
    for line in found.measures:
        pair = line.paired
        low, high = (f"{100 * end:+.1f}" for end in pair.interval)
        share = (f"{right / pair.n:.3f}" for right in (pair.a, pair.b))
        between = f"{100 * pair.difference:+.1f} [{low}, {high}]"
        table.add_row(escape(line.title), *share, str(pair.lost), str(pair.gained), escape(between), f"{pair.p:.2g}")
    return table


def _details(found: Measure) -> Iterator[str]:
    differing = [c for c in found.classes if c.a != c.b][:SHOWN]
    if differing:
        said = (f"{c.label} ({c.a} and {c.b} of {c.n})" for c in differing)
        yield f"classes that differ most, A and B: {', '.join(said)}"
    for winner, loser, only in (("A", "B", found.only_a), ("B", "A", found.only_b)):
        yield from _named(winner, loser, only)


def _named(winner: str, loser: str, only: Only) -> Iterator[str]:
    if only.n:
        by = ", ".join(f"{'wrong as it is' if n == WRONG else n} {count}" for n, count in only.fooled_by.items())
        yield f"only {winner}: {only.n} ({loser}: {by})"
    for example in only.first:
        yield f"  {example.id} {example.name}, label {example.label}: {loser} {example.fate}"
    if only.n > len(only.first):
        yield f"  and {only.n - len(only.first)} more"


def _warnings(a: Side, b: Side, only_a: int, only_b: int) -> Iterator[str]:
    keys = ["name", "version", "seed", "mode"]
    keys += ["batch_size"] if a.attack.get("mode") == b.attack.get("mode") == "reference" else []
    if other := [f"{k}={a.attack.get(k)} and {b.attack.get(k)}" for k in keys if a.attack.get(k) != b.attack.get(k)]:
        yield f"A and B were attacked differently ({', '.join(other)}): part of the difference may be the attack's"
    if a.model["digest"] == b.model["digest"]:
        yield "A and B are the same model: what differs is the attack's"
    for letter, side in (("A", a), ("B", b)):
        if side.doubts is None:
            yield f"for {letter} no doubts were looked for: nothing shows that its numbers do not mislead"
        elif side.doubts:
            yield f"the evaluation of {letter} has doubts ({', '.join(side.doubts)}): it may withstand less than this"
    if only_a or only_b:
        yield f"{only_a} examples are in A alone, {only_b} in B alone: they are left out"


def _side(records: Records, uri: str) -> Side:
    said = records.about
    return Side(redact_text(uri), said["name"], said["model"], said["attack"], _doubts(records, uri))


def _doubts(records: Records, uri: str) -> tuple[str, ...] | None:
    """Those of the ``evaluation.json`` beside the records, where there is one."""
    folder, slash, _ = located(uri).rpartition("/")
    path = f"{folder}{slash}{EVALUATION}"
    try:
        with files(path).open(path) as file:
            evaluation = script.loads(file.read())
        if evaluation["model"]["digest"] != records.about["model"]["digest"]:
            raise Misuse(
                f"{redact_text(path)} is of another model than {records.path}: keep each evaluation's files apart"
            )
        return tuple(doubt["name"] for doubt in evaluation["doubts"]) if evaluation["checked"] else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Misuse(f"{redact_text(path)} is not whole ({first_line(error)}): evaluate again") from error

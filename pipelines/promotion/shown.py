"""A decision as people read it: a table on the terminal, Markdown for a pull request or the registry's page."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.outcome import cell
from pipelines.promotion.gate import Decision


def title(decision: Decision) -> str:
    against = f"against the champion, {decision.champion}" if decision.champion else "no champion is there yet"
    return f"{decision.candidate}: {'passed' if decision.passed else 'refused'}, {against}"


def show(decision: Decision, console: Console) -> None:
    table = Table(title=escape(title(decision)), title_justify="left", box=None)
    for column in ("", "clause", "asked", "found"):
        table.add_column(column, overflow="fold")
    for clause in decision.clauses:
        mark = "[green]ok[/]" if clause.passed else "[red]NO[/]"
        table.add_row(mark, escape(clause.name), escape(clause.asked), escape(clause.found))
    console.print(table)


def markdown(decision: Decision) -> str:
    return "\n".join(_markdown(decision)) + "\n"


def _markdown(decision: Decision) -> Iterator[str]:
    yield f"### {'Passed' if decision.passed else 'Refused'}: {cell(decision.candidate)}"
    yield ""
    against = f"Compared with the champion, {decision.champion}." if decision.champion else "There is no champion yet."
    yield cell(against)
    yield ""
    yield "| | clause | asked | found |"
    yield "|---|---|---|---|"
    for clause in decision.clauses:
        mark = "✅" if clause.passed else "❌"
        yield f"| {mark} | {cell(clause.name)} | {cell(clause.asked)} | {cell(clause.found)} |"


def plain(decision: Decision) -> dict[str, Any]:
    return {**asdict(decision), "passed": decision.passed}

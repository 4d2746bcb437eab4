"""What was spent, as people read it: a table, a line for all of it, and a line for each thing that is not in it."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.costs.bill import Sum
from pipelines.costs.prices import Prices

Row = tuple[tuple[str, ...], Sum]
"""What a line is about, and what it cost."""

COUNTED = (
    "hours: GPUs held times hours, from a command's beginning to its end; processors where it held no GPU; wasted: the "
    "part in which a training was on its way back to where it had been; the head's node and queues are not in it"
)


def show(title: str, columns: Sequence[str], rows: Sequence[Row], prices: Prices | None, console: Console) -> None:
    numbers = ["hours", "wasted", *([prices.currency, "of it wasted"] if prices else [])]
    console.print(title, soft_wrap=True, markup=False)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    for about, cost in rows:
        table.add_row(*map(escape, about), *_cells(cost, prices))
    console.print(table)


def close(cost: Sum, prices: Prices | None, console: Console) -> None:
    for line in (_in_all(cost, prices), *_lacking(cost), f"({COUNTED})"):
        console.print(line, soft_wrap=True, markup=False)


def hours(cost: Sum) -> str:
    """``≥`` where something of it is not known, ``-`` where nothing is."""
    said = _hours(cost.held.gpu_hours, cost.held.cpu_hours)
    if not cost.known:
        return "-"
    return f"≥ {said}" if cost.missing else said


def lost(cost: Sum) -> str:
    return _hours(cost.lost.gpu_hours, cost.lost.cpu_hours) if cost.known else "-"


def money(cost: Sum) -> str:
    if not cost.priced:
        return "-"
    return f"{'≥ ' if cost.unpriced or cost.missing else ''}{cost.held.money:.2f}"


def _cells(cost: Sum, prices: Prices | None) -> Iterator[str]:
    yield hours(cost)
    yield lost(cost)
    if prices:
        yield money(cost)
        yield f"{cost.lost.money:.2f}" if cost.priced else "-"


def _hours(gpu: float, cpu: float) -> str:
    said = [f"{gpu:.3f} GPU h"] * bool(gpu) + [f"{cpu:.3f} CPU h"] * bool(cpu)
    return " + ".join(said) or "0"


def _in_all(cost: Sum, prices: Prices | None) -> str:
    spent = f", {money(cost)} {prices.currency}" if prices else ""
    of_it = f", {cost.lost.money:.2f} {prices.currency}" if prices and cost.priced else ""
    causes = ", ".join(f"{cause} {_hours(a.gpu_hours, a.cpu_hours)}" for cause, a in sorted(cost.wasted.items()))
    said = f"in all: {hours(cost)}{spent}; wasted {lost(cost)}{of_it}"
    return said + (f" ({causes}; {cost.again:,} steps trained again)" if causes else "")


def _lacking(cost: Sum) -> Iterator[str]:
    for what, count in sorted(cost.missing.items()):
        yield f"not counted: {what}: {count}"
    for why, count in sorted(cost.unpriced.items()):
        yield f"without a price: {why}: {count}"

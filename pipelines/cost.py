"""``holdfast cost``: hours and money of runs, a search or a registered model, and what of them was wasted."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import outcome
from pipelines.compose import compose
from pipelines.costs import bill, prices, shown
from pipelines.costs.bill import Item, Sum
from pipelines.costs.prices import Prices
from pipelines.errors import Misuse
from pipelines.tracking import holding, server, spent
from pipelines.tracking.spent import Run


def cost(lines: Sequence[str], console: Console, recipes: Path | None, json: str | None) -> None:
    """Errors: ``Misuse`` for what is not there; ``Failure`` if the tracking server goes away."""
    config, paid = _asked(lines, recipes)
    outcome.check(json)
    asked = [key for key in ("run", "search", "name") if config[key] is not None]
    if len(asked) > 1:
        raise Misuse(f"{', '.join(f'{key}={config[key]}' for key in asked)}: give one of them")
    bills = _Bills(config, paid, _since(config["since"]), console)
    server.check_there(config["tracking"]["uri"])
    one = {"run": bills.run, "search": bills.search, "name": bills.name}
    found = one[asked[0]]() if asked else bills.runs()
    outcome.leave({"currency": paid.currency if paid else None, "prices": paid.where if paid else None, **found}, json)


def _asked(lines: Sequence[str], recipes: Path | None) -> tuple[dict[str, Any], Prices | None]:
    """The config, and its prices: a choice, or a file, which is known by its ending.  Errors: ``Misuse``."""
    names = [line for line in lines if line.startswith("search=")]  # of a search there is, not one of the choices
    paid = [line for line in lines if line.startswith("prices=")]
    file = bool(paid) and paid[-1].endswith((".yaml", ".yml"))
    config = compose("cost", [line for line in lines if line not in names and not (file and line in paid)], recipes)
    if names:
        config["search"] = names[-1].removeprefix("search=")
    if config["last"] < 1:
        raise Misuse(f"last={config['last']} must be at least 1: how many of the newest runs are listed")
    if file:
        return config, prices.of_file(paid[-1].removeprefix("prices="))
    where = paid[-1] if paid else "prices"
    return config, prices.read(config["prices"], where) if config["prices"] is not None else None


def _since(day: str | None) -> int:
    """Milliseconds since 1970; a time without a zone is UTC."""
    if day is None:
        return 0
    try:
        when = datetime.fromisoformat(day)
        return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise Misuse(f"since={day} is no date; write it as 2026-11-01, or 2026-11-01T08:00") from error


class _Bills:
    """Each prints its table and returns the same as plain values."""

    def __init__(self, config: Mapping[str, Any], paid: Prices | None, since: int, console: Console) -> None:
        self._config, self._paid, self._since, self._console = config, paid, since, console
        self._uri, self._experiment = config["tracking"]["uri"], config["tracking"]["experiment"]

    def runs(self) -> dict[str, Any]:
        """The newest, or all since then."""
        most = None if self._since else self._config["last"]
        found = self._items(spent.newest(self._uri, self._experiment, most, self._since))
        rows = [
            ((run.id[:8], run.name, bill.date(run.began), _pools(items), run.status.lower()), bill.of_run(items))
            for run, items in found.items()
        ]
        about = ("run", "name", "began, UTC", "pool", "is")
        return self._close(f"{len(rows)} runs of {self._experiment}", about, rows, runs=self._plain(found))

    def run(self) -> dict[str, Any]:
        """Its starts."""
        run = spent.find(self._uri, self._experiment, self._config["run"])
        found = self._items([run])
        rows = [(_start(item), item.cost) for item in found[run]] or [(("-",) * 5, bill.of_run([]))]
        about = ("what", "began, UTC", "on", "pool", "ended")
        return self._close(f"{run.name}, run {run.id}", about, rows, runs=self._plain(found))

    def search(self) -> dict[str, Any]:
        """Its trials and finalists; what a gate did with them since then belongs to the promotion."""
        name = self._config["search"]
        runs = [run for run in spent.searched(self._uri, self._experiment, name) if spent.PARENT in run.tags]
        named = {run.name for run in runs}
        parts: dict[str, dict[Run, list[Item]]] = {"trials": {}, "finalists": {}}
        for run, items in self._items(run for run in runs if run.began >= self._since).items():
            part = "finalists" if run.name.rpartition("-seed")[0] in named else "trials"
            parts[part][run] = [item for item in items if item.held.start.what != holding.PROMOTE]
        rows = [((part, str(len(found))), _sum(map(bill.of_run, found.values()))) for part, found in parts.items()]
        plain = {part: self._plain(found) for part, found in parts.items()}
        return self._close(f"search {name}", ("what", "runs"), rows, **plain)

    def name(self) -> dict[str, Any]:
        """Of each version its training, its evaluations, and those of the gate."""
        rows, plain, searches = list[shown.Row](), list[dict[str, Any]](), set[str]()
        for version, run in spent.of_versions(self._uri, self._config["name"]):
            if version.made >= self._since:
                parts = self._parts(run)
                rows += [((str(version.number), what), each) for what, each in parts.items()]
                said = {what: each.plain(self._paid) for what, each in parts.items()}
                plain.append({"version": version.number, "run_id": version.run_id, **said})
                searches |= {version.tags["search"]} if "search" in version.tags else set()
        found = self._close(self._config["name"], ("version", "what"), rows, versions=plain)
        for search in sorted(searches):
            note = f"a version came from a search, whose other runs are not in it: holdfast cost search={search}"
            self._console.print(note, soft_wrap=True, markup=False)
        return found

    def _items(self, runs: Iterable[Run]) -> dict[Run, list[Item]]:
        return {run: bill.items(self._uri, run, self._paid) for run in runs}

    def _parts(self, run: Run | None) -> dict[str, Sum]:
        items = bill.items(self._uri, run, self._paid) if run else []
        if not items:
            return {"training": bill.of_run([])}
        return {said: _sum(i.cost for i in items if i.held.start.what == what) for what, said in _PARTS.items()}

    def _plain(self, found: Mapping[Run, list[Item]]) -> list[dict[str, Any]]:
        return [
            {"run_id": run.id, "name": run.name, "status": run.status, "began": bill.date(run.began)}
            | bill.of_run(items).plain(self._paid)
            | {"starts": [item.plain(self._paid) for item in items]}
            for run, items in found.items()
        ]

    def _close(self, title: str, about: Sequence[str], rows: Sequence[shown.Row], **plain: Any) -> dict[str, Any]:
        every = _sum(cost for _, cost in rows)
        shown.show(title, about, rows, self._paid, self._console)
        shown.close(every, self._paid, self._console)
        return {**plain, "total": every.plain(self._paid)}


_PARTS = {holding.TRAIN: "training", holding.EVALUATE: "evaluation", holding.PROMOTE: "promotion"}


def _sum(costs: Iterable[Sum]) -> Sum:
    return sum(costs, Sum())


def _start(item: Item) -> tuple[str, ...]:
    start = item.held.start
    on = f"{start.gpus:g} GPUs" if start.gpus else f"{start.cpus:g} CPUs"
    return start.what, bill.date(start.began), on, start.pool or "-", start.how or "not known"


def _pools(items: Iterable[Item]) -> str:
    return ", ".join(sorted({item.held.start.pool or "-" for item in items})) or "-"

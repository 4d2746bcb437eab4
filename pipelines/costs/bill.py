"""Hours and money of what was held, and sums of them that know what they lack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipelines.costs import account
from pipelines.costs.account import Held
from pipelines.costs.prices import Prices
from pipelines.tracking import holding, spent
from pipelines.tracking.spent import Run


@dataclass(frozen=True)
class Amount:
    """``gpu_hours`` of what held GPUs, ``cpu_hours`` of what held none."""

    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    money: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        both = (self.gpu_hours + other.gpu_hours, self.cpu_hours + other.cpu_hours, self.money + other.money)
        return Amount(*both)


@dataclass(frozen=True)
class Sum:
    """``wasted``: of ``held``, by cause.  ``again``: training steps done twice.  ``missing``: what is not in it, by
    reason, how often.  ``unpriced``: what of ``held`` is not in its money, by reason, how often."""

    held: Amount = Amount()
    wasted: Mapping[str, Amount] = field(default_factory=dict)
    again: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    unpriced: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(
            held=self.held + other.held,
            wasted=_added(self.wasted, other.wasted),
            again=self.again + other.again,
            missing=_added(self.missing, other.missing),
            unpriced=_added(self.unpriced, other.unpriced),
        )

    @property
    def lost(self) -> Amount:
        return sum(self.wasted.values(), Amount())

    @property
    def known(self) -> bool:
        """Whether any of it is."""
        return not self.missing or self.held != Amount()

    @property
    def priced(self) -> bool:
        """Whether any of it has a price."""
        return self.known and (self.held.money > 0 or not self.unpriced)

    def plain(self, prices: Prices | None) -> dict[str, Any]:
        """Hours of what is known, and money of what has a price; null where nothing is, or has."""

        def said(amount: Amount) -> dict[str, float | None]:
            money = amount.money if prices and self.priced else None
            return {**({**vars(amount)} if self.known else dict.fromkeys(vars(amount))), "money": money}

        return {
            **said(self.held),
            "wasted": {cause: said(amount) for cause, amount in self.wasted.items()},
            "steps_again": self.again,
            "missing": dict(self.missing),
            "unpriced": dict(self.unpriced),
        }


@dataclass(frozen=True)
class Item:
    """One start of a run, and what it cost."""

    run: Run
    held: Held
    cost: Sum

    def plain(self, prices: Prices | None) -> dict[str, Any]:
        return {**vars(self.held.start), "seconds": self.held.seconds, **self.cost.plain(prices)}


NO_RECORD = "runs without a record of what they held"
NO_END = "starts without a known end, killed or still at work"


def items(uri: str, run: Run, prices: Prices | None) -> list[Item]:
    """Of each start of ``run``, the oldest first."""
    starts = run.starts
    training = [start for start in starts if start.what == holding.TRAIN]
    held = [account.plain(start) for start in starts if start.what != holding.TRAIN] + _trained(uri, run, training)
    return [Item(run, each, _cost(each, prices)) for each in sorted(held, key=lambda each: each.start.began)]


def _trained(uri: str, run: Run, starts: list[holding.Start]) -> list[Held]:
    """The history of one that began once and ended is not asked for: it is long, and tells nothing more."""
    begun = spent.history(uri, run.id, holding.FROM) if starts else []
    once = len(starts) == 1 and starts[0].ended is not None and len(begun) < 2
    rest = ([], []) if once else [spent.history(uri, run.id, key) for key in (holding.REACHED, holding.NOTICE)]
    return account.trained(starts, begun, *rest) if starts else []


def of_run(items: Sequence[Item]) -> Sum:
    """All that one run cost."""
    return sum((item.cost for item in items), Sum()) if items else Sum(missing={NO_RECORD: 1})


def date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="minutes")[:16]


def _cost(held: Held, prices: Prices | None) -> Sum:
    if held.seconds is None:
        return Sum(missing={NO_END: 1})
    why = prices.why_not(held.start) if prices else None
    rate = prices.hour(held.start) if prices and not why else 0.0

    def amount(seconds: float) -> Amount:
        gpus, hours = held.start.gpus, seconds / 3600
        return Amount(gpus * hours, 0.0 if gpus else held.start.cpus * hours, rate * hours)

    wasted = {cause: amount(seconds) for cause, seconds in held.wasted.items()}
    return Sum(amount(held.seconds), wasted, held.again, {}, {why: 1} if why else {})


def _added(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    return {key: a[key] + b[key] if key in a and key in b else a.get(key, b.get(key)) for key in {**a, **b}}

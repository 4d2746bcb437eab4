"""The classes of a threat: each of them where they are few, else the worst, the best and how all are spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipelines.report import words

FEW = 30
"""So many classes are shown one by one."""
WORST, BEST = 15, 5
SPARSE = 20
"""With fewer images a class than this, the order of the classes is mostly chance."""


@dataclass(frozen=True)
class Row:
    """One class; ``clean, robust, low, high`` in percent, None without an image."""

    name: str
    n: int
    clean_text: str
    robust_text: str
    interval_text: str
    clean: float | None
    robust: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """A bar of the histogram: ``height`` in percent of the highest."""

    label: str
    count: int
    height: float


@dataclass(frozen=True)
class Classes:
    threat: str
    rows: tuple[Row, ...]
    worst: tuple[Row, ...]
    worst_caption: str
    best: tuple[Row, ...]
    best_caption: str
    bins: tuple[Bin, ...]
    note: str
    summary: str


def classes(evaluation: Mapping[str, Any]) -> list[Classes]:
    """Of each threat that has them."""
    return [_classes(threat) for threat in evaluation["threats"] if threat.get("per_class")]


def _classes(threat: Mapping[str, Any]) -> Classes:
    every = threat["per_class"]
    title = words.threat(threat["norm"], threat["eps"])
    if len(every) <= FEW:
        return Classes(title, tuple(map(_row, every)), (), "", (), "", (), _sparse(every), _summary(every))
    seen = sorted((one for one in every if one["n"]), key=_order)
    ends = (*_end(seen, WORST, "least"), *_end(seen[::-1], BEST, "most"))
    return Classes(title, (), *ends, _bins(seen), _sparse(every), _summary(every))


def _end(seen: Sequence[Mapping[str, Any]], most: int, which: str) -> tuple[tuple[Row, ...], str]:
    """The first ``most`` and their caption, which tells where the last of them is as good as one not shown."""
    shown = seen[:most]
    ties = any(_order(one)[0] == _order(shown[-1])[0] for one in seen[most:])
    return tuple(map(_row, shown)), f"{len(shown)} of the {which} robust classes{', others tie' if ties else ''}"


def _order(one: Mapping[str, Any]) -> tuple[float, float, str]:
    return one["robust"] / one["n"], one["clean"] / one["n"], str(one["class"])


def _row(one: Mapping[str, Any]) -> Row:
    name, n = str(one["class"]), one["n"]
    if not n:
        return Row(name, 0, "–", "–", "no image", None, None, 0, 0)
    clean, robust = one["clean"] / n, one["robust"] / n
    low, high = one["interval"]
    shown = words.percent(clean, n), words.percent(robust, n), words.interval((low, high), n)
    return Row(name, n, *shown, 100 * clean, 100 * robust, 100 * low, 100 * high)


def _sparse(every: Sequence[Mapping[str, Any]]) -> str:
    """A warning against reading an order into noise; empty where there are images enough."""
    typical = median(one["n"] for one in every)
    if typical >= SPARSE:
        return ""
    images = words.counted(round(typical), "image")
    return f"With {images} a class the intervals are wide, and much of the order is chance."


def _summary(every: Sequence[Mapping[str, Any]]) -> str:
    shares = [one["robust"] / one["n"] for one in every if one["n"]]
    if not shares:
        return "No class has an image."
    lowest, highest = (f"{100 * share:.0f}{words.NBSP}%" for share in (min(shares), max(shares)))
    text = f"{len(shares):,} {'class' if len(shares) == 1 else 'classes'}"
    none = sum(share == 0 for share in shares)
    at_none = f", {none:,} of them at 0{words.NBSP}%" if none else ""
    middle = f"{100 * median(shares):.0f}{words.NBSP}%"
    return f"{text}, robust accuracy from {lowest} to {highest}, median {middle}{at_none}."


def _bins(seen: Sequence[Mapping[str, Any]]) -> tuple[Bin, ...]:
    """Tenths of the robust share; where every class has the same few images, one bar for each share there can be."""
    sizes = {one["n"] for one in seen}
    if len(sizes) == 1 and (n := sizes.pop()) <= SPARSE:
        labels = [f"{i}/{n}" for i in range(n + 1)]
        places = [one["robust"] for one in seen]
    else:
        labels = [f"{10 * i}–{10 * i + 10}" for i in range(10)]
        places = [min(10 * one["robust"] // one["n"], 9) for one in seen]
    counts = [places.count(i) for i in range(len(labels))]
    return tuple(Bin(label, c, 100 * c / max(counts)) for label, c in zip(labels, counts, strict=True))

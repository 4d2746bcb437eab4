"""The robustness curve as a figure: accuracy against eps, its interval as a band, positions in percent of the plot.

A plot is drawn in an SVG stretched to whatever width there is, with its labels set over it as text: so they keep
their size from a phone to paper.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.report import words

STEPS = 5
"""About how many ticks an axis bears."""


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """The verdict of the whole attack at an evaluated eps, with its interval: in percent from the left and top."""

    at: float
    text: str
    y: float
    top: float
    height: float
    row: int
    right: bool


@dataclass(frozen=True)
class Curve:
    norm: str
    attack: str
    unit: str
    line: str
    band: str
    dots: tuple[tuple[float, float], ...]
    ticks: tuple[Tick, ...]
    levels: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    rows: tuple[tuple[str, str, str], ...]
    summary: str


def curves(evaluation: Mapping[str, Any]) -> list[Curve]:
    return [_curve(evaluation, curve) for curve in evaluation["curves"] if len(curve["eps"]) > 1]


def _curve(evaluation: Mapping[str, Any], curve: Mapping[str, Any]) -> Curve:
    norm, n = curve["norm"], evaluation["clean"]["n"]
    threats = [threat for threat in evaluation["threats"] if threat["norm"] == norm]
    end = 1.02 * max([*curve["eps"], *(threat["eps"] for threat in threats)])
    across = [100 * eps / end for eps in curve["eps"]]
    down = [100 * (1 - accuracy) for accuracy in curve["accuracy"]]
    low = [(x, 100 * (1 - bounds[0])) for x, bounds in zip(across, curve["interval"], strict=True)]
    high = [(x, 100 * (1 - bounds[1])) for x, bounds in zip(across, curve["interval"], strict=True)]
    dots = tuple(zip(across, down, strict=True))
    rows = tuple(
        (words.eps(eps), words.percent(accuracy, n), words.interval(bounds, n))
        for eps, accuracy, bounds in zip(curve["eps"], curve["accuracy"], curve["interval"], strict=True)
    )
    return Curve(
        norm,
        curve["attack"],
        "pixel values in [0, 1]" if norm == "Linf" else f"{norm} norm, pixels in [0, 1]",
        _points(dots),
        _points([*high, *reversed(low)]),
        dots,
        tuple(Tick(100 * tick / end, f"{tick:g}") for tick in ticks(end)),
        tuple(Tick(100 * tick / (255 * end), f"{tick:g}") for tick in ticks(255 * end)) if norm == "Linf" else (),
        tuple(_mark(row, threat, end) for row, threat in enumerate(threats)),
        rows,
        f"Accuracy under {curve['attack']} falls from {rows[0][1]} at eps {rows[0][0]} to {rows[-1][1]} at eps "
        f"{rows[-1][0]}, {curve['norm']}.",
    )


def _points(pairs: Any) -> str:
    return " ".join(f"{x:.3f},{y:.3f}" for x, y in pairs)


def _mark(row: int, threat: Mapping[str, Any], end: float) -> Mark:
    low, high = threat["robust"]["interval"]
    at = 100 * threat["eps"] / end
    y = 100 * (1 - threat["robust"]["accuracy"])
    return Mark(at, f"eps {words.eps(threat['eps'])}", y, 100 * (1 - high), 100 * (high - low), row, at > 70)


def ticks(end: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from 0 to ``end``, about ``STEPS`` of them."""
    power = 10.0 ** math.floor(math.log10(end / STEPS))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * STEPS >= end * 0.999)
    return [round(step * i, 12) for i in range(math.floor(end / step + 1e-9) + 1)]

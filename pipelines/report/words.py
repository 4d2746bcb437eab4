"""Numbers as a reader meets them: shares with the digits their n supports, eps with its unit, times, dates."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""


def percent(share: float, n: int) -> str:
    """No decimal below n = 100, two from n = 5,000, and as many as it takes to tell a share from 0 and from 1."""
    return f"{_figure(share, n)}{NBSP}%"


def interval(bounds: Sequence[float], n: int) -> str:
    return f"{_figure(bounds[0], n)} to {_figure(bounds[1], n)}{NBSP}%"


def _figure(share: float, n: int) -> str:
    places = 0 if n < 100 else 1 if n < 5000 else 2
    while 1e-9 < share < 1 - 1e-9 and float(f"{100 * share:.{places}f}") in (0, 100):
        places += 1
    return f"{100 * share:.{places}f}"


def eps(value: float) -> str:
    """As a person writes it: ``0.1``, ``0.5``, and ``8/255`` where three digits do not hold the value."""
    levels = round(255 * value)
    if float(f"{value:.3g}") != value and abs(255 * value - levels) < 1e-5:
        return f"{levels}/255"
    return f"{value:.4g}"


def threat(norm: str, value: float) -> str:
    return f"{norm} eps {eps(value)}"


def in_other_unit(norm: str, value: float) -> str:
    """The eps of an Linf threat in the unit ``eps`` did not choose: pixel values or 255ths; empty for other norms."""
    if norm != "Linf":
        return ""
    return f"{value:.3g}" if "/" in eps(value) else f"{255 * value:.4g}/255"


def reach(norm: str, value: float) -> str:
    """What an attack may do: the end of "which may change ..."."""
    if norm == "Linf":
        levels = f"{255 * value:.3g} of 255 grey levels"
        return f"each pixel value by up to {levels if '/' in eps(value) else f'{eps(value)} ({levels})'}"
    return f"each image by up to {eps(value)} in {norm} norm, pixels being in [0, 1]"


def count(number: float) -> str:
    return f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2g}{NBSP}s" if seconds < 1 else f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    return f"{whole // 3600:,}{NBSP}h {whole % 3600 // 60:02d}{NBSP}min"


def moment(date: str) -> str:
    """``2026-11-21 14:00 UTC`` of an ISO date; one that is none, as it is."""
    try:
        when = datetime.fromisoformat(date)
    except ValueError:
        return date
    return f"{when.astimezone(UTC) if when.tzinfo else when:%Y-%m-%d %H:%M} UTC"


def fact(value: Any) -> str:
    """A piece of evidence: numbers to four digits, yes and no, anything else as it prints."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(fact(part) for part in value)
    return str(value)

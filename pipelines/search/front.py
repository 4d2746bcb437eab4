"""What a search found: the front of clean against robust accuracy, and which of it to choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Misuse
from pipelines.search.space import overrides


@dataclass(frozen=True)
class Trial:
    """``sample``: its settings.  ``clean``, ``robust``: accuracies on validation images.  ``epochs``: trained, in
    ``steps`` standard steps and ``seconds``; None where it was ended early, which nobody counted."""

    name: str
    sample: Mapping[str, Any]
    clean: float
    robust: float
    epochs: float
    steps: float | None
    run_id: str
    seconds: float | None = None

    @property
    def said(self) -> str:
        """Its settings, as the command line would have them."""
        return ", ".join(overrides(self.sample))


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Those that no other dominates: as good in both accuracies and better in one.  By falling robust accuracy."""
    best = [t for t in trials if not any(_dominates(other, t) for other in trials)]
    return sorted(best, key=lambda t: (-t.robust, -t.clean, t.name))


def _dominates(a: Trial, b: Trial) -> bool:
    return (a.clean, a.robust) != (b.clean, b.robust) and a.clean >= b.clean and a.robust >= b.robust


def rule(text: str) -> str:
    """``choose`` as it is written: ``robust``, ``robust_with_clean_0.9``, ``knee``.  Errors: ``Misuse``."""
    _floor(text)
    return text


def _floor(text: str) -> float | None:
    if text in ("robust", "knee"):
        return None
    try:
        floor = float(text.removeprefix("robust_with_clean_"))
        if not 0 <= floor <= 1 or not text.startswith("robust_with_clean_"):
            raise ValueError
    except ValueError:
        raise Misuse(
            f"choose={text} is unknown; choose robust, knee, or robust_with_clean_0.9 (any floor in [0, 1])"
        ) from None
    return floor


def ranked(trials: Sequence[Trial], choose: str) -> list[Trial]:
    """The best by ``choose`` first, runners-up behind it.

    ``robust``: by robust accuracy.  ``robust_with_clean_X``: the same among those of clean accuracy X and more; the
    others follow by clean accuracy.  ``knee``: by the least distance from the corner of the best clean and the best
    robust accuracy, each scaled to its range over the front.
    """
    floor = _floor(choose)
    if choose == "knee":
        edge = front(trials)
        spans = [(min(v), max(v)) for v in ([t.clean for t in edge], [t.robust for t in edge])]
        return sorted(trials, key=lambda t: (_from_corner(t, spans), t.name))
    low = floor or 0.0
    return sorted(trials, key=lambda t: (t.clean < low, -t.robust if t.clean >= low else -t.clean, -t.clean, t.name))


def _from_corner(trial: Trial, spans: Sequence[tuple[float, float]]) -> float:
    return sum(
        ((high - value) / (high - low or 1.0)) ** 2
        for value, (low, high) in zip((trial.clean, trial.robust), spans, strict=True)
    )

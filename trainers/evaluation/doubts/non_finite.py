"""Logits that are infinite or not a number."""

import torch
from torch import Tensor

from trainers import noise
from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, Evidence

NAME = "non-finite logits"


def corners(case: Case) -> dict[str, Tensor]:
    """Images an attack may come by: uniform ones, a chessboard, noise, and the examples' negatives."""
    x = case.x[:1]
    rows, columns = (torch.arange(length, device=x.device) for length in x.shape[2:])
    board = ((rows[:, None] + columns) % 2).to(x.dtype).expand_as(x)
    return {
        "black": torch.zeros_like(x),
        "white": torch.ones_like(x),
        "grey": torch.full_like(x, 0.5),
        "chessboard": board,
        "noise": noise.uniform(case.streams("noise"), x.shape[1:], x.dtype),
        "negative": 1 - case.x,
    }


def look(case: Case) -> Doubt | None:
    """Any at all: of the examples, of ``corners``, or counted by the evaluation."""
    counts = {"clean": _bad(case.logits)} | {name: _bad(case.forward(x)) for name, x in corners(case).items()}
    if case.tally.non_finite == 0 and not any(counts.values()):
        return None
    evidence: Evidence = {"in_the_evaluation": case.tally.non_finite}
    where = ", ".join(name for name, count in counts.items() if count) or "attacked ones only"
    return Doubt(
        NAME,
        f"Some images get logits that are infinite or not a number ({where}). Their loss has no gradient, and a NaN "
        "counts as misclassified, so the robust accuracy may be wrong either way. Look for a division, a logarithm or "
        "an overflow in forward, and run it in float32.",
        evidence | counts,
    )


def _bad(logits: Tensor) -> int:
    return int((~logits.isfinite()).any(1).sum())

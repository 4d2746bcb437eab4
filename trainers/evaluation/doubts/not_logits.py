"""Outputs that have been through a softmax or a sigmoid."""

import torch
from torch import Tensor

from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt
from trainers.evaluation.doubts.non_finite import corners

NAME = "outputs are not logits"


def look(case: Case) -> Doubt | None:
    """The outputs for the examples and for ``corners`` all look like one of ``_kind``.

    A plain log-softmax is none of them: it subtracts a constant from each example's logits, to which cross-entropy,
    margin and ratio losses are blind.
    """
    outputs = torch.cat([case.logits, *(case.forward(x) for x in corners(case).values())]).double()
    outputs = outputs[outputs.isfinite().all(1)]
    kind = _kind(outputs, max(1e-4, case.rounding)) if len(outputs) else None
    if kind is None:
        return None
    return Doubt(
        NAME,
        f"The model returns {kind}, not logits: where it is confident they are flat, and every loss that attacks climb "
        "loses its gradient. Return what goes into the last softmax or sigmoid.",
        {
            "kind": kind,
            "lowest": float(outputs.min()),
            "highest": float(outputs.max()),
            "largest_distance_of_a_sum_from_1": float((outputs.sum(1) - 1).abs().max()),
        },
    )


def _kind(outputs: Tensor, tolerance: float) -> str | None:
    low, high = float(outputs.min()), float(outputs.max())
    if low >= -tolerance and high <= 1 + tolerance:
        if bool(((outputs.sum(1) - 1).abs() <= tolerance).all()):
            return "probabilities (each row sums to 1)"
        # logits near zero, as an untrained head gives, may be in [0, 1] too, but not at both ends of it
        return "scores between 0 and 1" if low < 0.1 and high > 0.9 else None
    tied = (outputs == outputs.amin(1, keepdim=True)).sum(1) >= 2
    normal = high <= tolerance and bool((outputs.logsumexp(1).abs() <= 0.05).all())  # a floor adds to the sum
    return "log-probabilities with a floor" if normal and tied.double().mean() >= 0.5 else None

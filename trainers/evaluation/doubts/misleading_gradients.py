"""Gradients that are there, but are not those of the function the model computes."""

import torch
from torch import Tensor

from trainers import losses
from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, many

NAME = "misleading gradients"

STEPS = (1 / 16 / 255, 1 / 4 / 255, 1 / 255)
"""In pixel units: at one of them the margin of a sound model must fall, however curved or coarsely rounded it is."""


def look(case: Case) -> Doubt | None:
    """Half or more of the examples have a margin that falls, a small step ``d = -h sign(g)`` (inside the cube) down its
    gradient, by less than a quarter of what the gradient says, ``-<g, d>``, at each ``h`` of ``STEPS``."""
    rows = (case.right & ~case.vanishing).nonzero()[:, 0]
    if not len(rows):
        return None
    kept = _kept(case, rows)
    misled = int((kept < 0.25).sum())
    if not many(misled, len(rows), 0.5):
        return None
    return Doubt(
        NAME,
        f"A small step down the gradient of the logit margin does not lower it as the gradient says, for {misled} of "
        f"{len(rows)} images: the backward pass is not that of the forward (a custom backward, a straight-through "
        "estimate) or the surface is shattered. Gradient attacks are misled; attack a faithful surrogate, or without "
        "gradients.",
        {"images": len(rows), "misled": misled, "median_share_of_the_predicted_fall": float(kept.median())},
    )


def _kept(case: Case, rows: Tensor) -> Tensor:
    """``(M,)``: the largest measured fall over the predicted one; 1 where the cube leaves no way down."""
    x, y, gradient = case.x[rows], case.y[rows], case.margin_gradient[rows]
    margin, kept = losses.margin(case.logits[rows], y), []
    for step in STEPS:
        moved = (x - step * gradient.sign()).clamp(0, 1)
        predicted = (gradient.double() * (x - moved).double()).flatten(1).sum(1)
        fall = (margin - losses.margin(case.forward(moved), y)).double()
        kept.append(torch.where(predicted > 0, fall / predicted, 1.0))
    return torch.stack(kept, 1).nan_to_num(0).amax(1)

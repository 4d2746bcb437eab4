"""Inputs that the model rounds: logits that stand still below a step, then jump."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import noise
from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, many

NAME = "quantised input"

PIXELS = 4
"""Few, so that even a rounding whose steps lie anywhere is seldom crossed; those where the margin is steepest."""

LEVELS = (1 / 4, 1 / 16)
"""Grey levels (of 255) that they are moved by: below half a level, above TF32's rounding of a normalised image."""

JUMP = 8
"""Grey levels that every pixel is moved by, up or down, to see that the logits are not constant altogether."""


@dataclass(frozen=True)
class _Seen:
    level: float
    asked: int
    still: int


def look(case: Case) -> Doubt | None:
    """Half or more of the examples have logits that are bit for bit the same when ``PIXELS`` pixels move by a fraction
    of a grey level, and others when all move by ``JUMP``.

    Examples are asked only where the gradient, if there is one, says that the rounding of the arithmetic would not hide
    the change.
    """
    signs = (2 * noise.uniform(case.streams(NAME), case.x.shape[1:], case.x.dtype) - 1).sign()
    jumped = (case.forward((case.x + JUMP / 255 * signs).clamp(0, 1)) != case.logits).any(1)
    seen = [_step(case, level, jumped) for level in LEVELS]
    found = max(seen, key=lambda s: s.still / max(s.asked, 1))
    if found.asked == 0 or not many(found.still, found.asked, 0.5):
        return None
    return Doubt(
        NAME,
        f"The logits of {found.still} of {found.asked} images do not change at all when pixels move by "
        f"1/{1 / found.level:.0f} of a grey level, though larger moves change them: the model rounds its input, whose "
        "true gradient is zero. Attack with a straight-through gradient (BPDA) or without the rounding, and search on "
        "the grid it keeps.",
        {
            "images": found.asked,
            "unchanged": found.still,
            "grey_levels_moved": found.level,
            "pixels_moved": min(PIXELS, case.x[0].numel()),
            "changed_by_a_jump": int(jumped.sum()),
        },
    )


def _step(case: Case, level: float, jumped: Tensor) -> _Seen:
    """Move each example's steepest pixels away from the nearer end of [0, 1], or they might be clipped in the model."""
    gradient = case.margin_gradient.nan_to_num(0).flatten(1)
    size = gradient.abs() + 1e-30 * noise.uniform(case.streams("pixels"), gradient.shape[1:], gradient.dtype)
    chosen = size.topk(min(PIXELS, size.shape[1]), dim=1).indices
    flat, step = case.x.flatten(1), level / 255
    moved = torch.where(flat > 0.5, flat - step, flat + step)
    changed = flat.scatter(1, chosen, moved.gather(1, chosen)).reshape(case.x.shape)
    still = (case.forward(changed) == case.logits).all(1)

    towards = (moved - flat).sign()
    predicted = (gradient * towards).gather(1, chosen).sum(1).abs() * step
    hidden = 16 * case.resolution * case.logits.abs().amax(1)
    asked = jumped & ((predicted > hidden) | (gradient == 0).all(1))
    return _Seen(level, int(asked.sum()), int((still & asked).sum()))

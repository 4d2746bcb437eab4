"""Every doubt an evaluation must state, looked for on a few examples."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from trainers.evaluation.doubts import (
    black_box,
    inference_work,
    misleading_gradients,
    mode_leak,
    more_effort,
    non_finite,
    normalisation,
    not_logits,
    outside,
    quantised,
    randomness,
    saturated_loss,
    unbounded,
    zero_gradients,
)
from trainers.evaluation.doubts.case import Case, Connected
from trainers.evaluation.doubts.doubt import Doubt, Tally
from trainers.evaluation.doubts.untouched import drawing, uncompiled, untouched
from trainers.modes import frozen, mode, outside_inference
from trainers.threat import Threat
from trainers.types import Attack, Batch

_MODULES = (
    zero_gradients,
    misleading_gradients,
    saturated_loss,
    unbounded,
    black_box,
    more_effort,
    randomness,
    non_finite,
    quantised,
    normalisation,
    mode_leak,
    outside,
    not_logits,
    inference_work,
)

CHECKS: tuple[str, ...] = tuple(module.NAME for module in _MODULES)
"""The name of every doubt that is looked for, in order."""


def examine(
    model: nn.Module,
    batch: Batch,
    robust: Tensor,
    threat: Threat,
    tally: Tally,
    classes: int,
    seed: int = 0,
    stated_clean_accuracy: float | None = None,
    effort: Sequence[Attack] | None = None,
) -> list[Doubt]:
    """The doubts about an evaluation of ``model``, in the order of ``CHECKS``; none is the hope.

    ``model``: as it was loaded, in any state, which it is left in.  ``batch``: up to 64 clean examples, whose ``keys``
    are ids; ``robust: (N,) bool``: who of them withstood every attack.  ``tally``: what was counted over all examples.
    ``stated_clean_accuracy``: in [0, 1], the model's own.  ``effort``: attacks tried once more on the robust ones, by
    default those of ``more_effort.harder``.

    Deterministic given ``seed`` and ids, and torch's random state is left as it was.  The model runs as the evaluation
    runs it, every module in eval mode, but uncompiled.  An example that is robust costs about 600 forwards and 500
    backwards, a seventh of what AutoAttack takes of it, and only those of ``batch`` do.

    Errors: ``ValueError`` for no examples, verdicts that do not fit them, a stated accuracy outside [0, 1].
    """
    _check(batch, robust, stated_clean_accuracy)
    x, y, keys = (outside_inference(t) for t in batch)
    case = Case(
        model, Connected(model), x, y, keys, robust.to(y.device), threat, tally, classes, seed, stated_clean_accuracy
    )
    found = []
    with uncompiled(), untouched(model), mode(model, train=False), frozen(model), torch.inference_mode(False):
        for i, module in enumerate(_MODULES):
            look: Callable[[Case], Doubt | None] = module.look
            if module is more_effort:
                look = partial(more_effort.look, effort=effort)
            with drawing(seed + i, x.device):
                found.append(look(case))
    return [doubt for doubt in found if doubt is not None]


def _check(batch: Batch, robust: Tensor, stated: float | None) -> None:
    if len(batch.y) == 0:
        raise ValueError("no examples to look for doubts on: give some that the evaluation attacked")
    if robust.shape != batch.y.shape:
        raise ValueError(
            f"robust has shape {tuple(robust.shape)}, y {tuple(batch.y.shape)}: give one verdict an example"
        )
    if stated is not None and not 0 <= stated <= 1:
        raise ValueError(f"stated_clean_accuracy={stated:g} must be in [0, 1]; write 83.4 % as 0.834")

"""Robustness where there is none to be had: against a perturbation of any size."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from trainers import losses
from trainers.attacks.pgd import PGD
from trainers.attacks.search import misclassified
from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, many
from trainers.threat import Linf
from trainers.types import Loss

NAME = "robust at unbounded eps"

ATTEMPTS = ((20, 0.1, "margin"), (100, 0.02, "margin"), (50, 0.05, "ce"))
"""``(steps, step_size, loss)``, each on the examples that those before it have left."""


def look(case: Case) -> Doubt | None:
    """5 % or more of the examples classified rightly are still so after PGD in the whole cube of images.

    The balls of largest eps (Linf 1, L2 the diagonal, L1 all of it) hold the whole cube, so it is the same attack for
    every threat: ``Linf(1)``.  It starts at the image itself.  From a random start, which at this eps is noise that no
    longer shows the image, a model without gradients would be fooled too.
    """
    left = case.right.nonzero()[:, 0]
    n = len(left)
    for steps, step_size, loss in ATTEMPTS:
        if len(left):
            left = left[~_fooled(case, left, PGD(Linf(1.0), steps, step_size, random_start=False), _LOSSES[loss])]
    if n == 0 or not many(len(left), n, 0.05):
        return None
    return Doubt(
        NAME,
        f"With every pixel free to take any value a gradient attack leaves {len(left)} of {n} images standing, where "
        "it must leave none: its gradients do not lead to the adversarial examples, and the robust accuracy is an "
        "upper bound. Find what masks them before believing it.",
        {"images": n, "left_standing": len(left), "accuracy": len(left) / n, "attack": _named()},
    )


def _fooled(case: Case, rows: Tensor, attack: PGD, loss: Callable[[Tensor], Loss]) -> Tensor:
    x, y = case.x[rows], case.y[rows]
    return misclassified(case.forward(attack.maximise(case.model, x, loss(y))), y)


def _margin(y: Tensor) -> Loss:
    return lambda logits: -losses.margin(logits, y)


def _cross_entropy(y: Tensor) -> Loss:
    return partial(losses.cross_entropy, y=y)


_LOSSES: dict[str, Callable[[Tensor], Loss]] = {"margin": _margin, "ce": _cross_entropy}


def _named() -> str:
    return ", ".join(f"PGD-{steps} at {step_size:g} a step ({loss})" for steps, step_size, loss in ATTEMPTS)

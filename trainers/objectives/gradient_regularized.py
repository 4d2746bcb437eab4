"""Cross-entropy plus a penalty on its own input gradient (double back-propagation)."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from trainers import losses, modes, noise
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.ramp import Ramp
from trainers.threat import Threat
from trainers.types import Loss, Metrics, Model, Penalty


@dataclass(frozen=True)
class GradientRegularized:
    """``mean_i [ loss_weight · CE_i + weight · ramp(epoch) · penalty(∇_{x_i} CE_i) ]``.

    ``CE_i`` is one and the same soft-target loss in both terms, taken at the clean augmented image, and nothing is
    detached.  The gradient is of the summed loss, so each example's own, whatever the batch size or the number of
    workers, as long as no layer mixes the examples: with ``mode="eval"``, as published, BatchNorm uses its running
    statistics and dropout is off.

    Mixup or label smoothing must keep the cross-entropy away from zero: without them it and its gradient vanish on
    the training points and the penalty is met for free.

    ``at`` moves both terms away from the image: to a uniformly drawn point of a threat's ball, or to an attack's
    adversarial point, which is a constant to the parameters.

    Source: 2409.20139, GradNorm: 0.8 and 1.2, ramp (0, 0.2 an epoch, 1); its code's random points (balls of 2, 4 and
    8 /255) and its "combined" loss at PGD-3's points (1.8 and 0.2, ramp of 0.05 an epoch).
    """

    penalty: Penalty
    weight: float = 1.2
    loss_weight: float = 0.8
    ramp: Ramp = Ramp()
    smoothing: float = 0.0
    at: Threat | PGD | FGSM | None = None
    mode: str = "eval"
    second_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("weight", "loss_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"objective.{name}={getattr(self, name):g} must not be negative")
        losses.check_smoothing(self.smoothing)
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        loss_of = partial(losses.cross_entropy, y=y, smoothing=self.smoothing)
        x = self._point(model, x, loss_of, keys)
        gradient, values, logits = modes.differentiable_input_gradient(model, x, loss_of)
        cross_entropy = values.mean()
        penalty = self.penalty(gradient, x).mean()
        loss = self.loss_weight * cross_entropy + self.weight * self.ramp(epoch) * penalty
        return loss, {
            "loss": loss.detach(),
            "cross_entropy": cross_entropy.detach(),
            "penalty": penalty.detach(),
            "accuracy": losses.accuracy(logits, y),
        }

    def _point(self, model: Model, x: Tensor, loss: Loss, keys: Tensor | None) -> Tensor:
        if self.at is None:
            return x
        keys = noise.fresh(len(x), x.device) if keys is None else keys
        if isinstance(self.at, PGD | FGSM):
            return self.at.maximise(model, x, loss, keys)
        return self.at.random_start(x, keys)

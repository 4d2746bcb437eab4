"""The gradient penalty by finite differences: no derivative of a derivative."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from trainers import losses, modes
from trainers.ramp import Ramp
from trainers.threat import Threat
from trainers.types import Metrics, Model


@dataclass(frozen=True)
class FiniteDifference:
    """``mean_i [ loss_weight · CE(x_i) + weight · ramp(epoch) · eps · (CE(x_i + step · d_i) - CE(x_i)) / step ]``

    with ``d_i = ascent(∇_{x_i} CE_i)``, a constant to the parameters.  As ``step`` falls to 0 the quotient becomes the
    dual norm of the gradient, and this loss ``GradientRegularized`` with ``GradientNorm``: two backward passes of
    first order in place of one of second, so it works with fused attention, and with ReLU, of which a step sees the
    bends that a second derivative does not.  ``squared`` gives ``½ (eps · quotient)²``.

    ``step`` is in pixel units and may lead out of [0, 1].  Below 1e-3 the difference drowns in float32's rounding,
    and under bfloat16 sooner.  The network is in the same mode in all three forward passes, so BatchNorm in train mode
    counts each of them.

    Source: Finlay and Oberman 2019 (1905.11468), with ``squared`` and the L2 norm.  ``step`` 0.01 is ours.
    """

    threat: Threat
    weight: float = 1.2
    loss_weight: float = 0.8
    step: float = 0.01
    squared: bool = False
    ramp: Ramp = Ramp()
    smoothing: float = 0.0
    mode: str = "eval"
    second_order: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("weight", "loss_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"objective.{name}={getattr(self, name):g} must not be negative")
        if not (0 < self.step < math.inf):
            raise ValueError(f"objective.step={self.step:g} must be above 0, in pixel units; 0.01 is the usual choice")
        losses.check_smoothing(self.smoothing)
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        loss_of = partial(losses.cross_entropy, y=y, smoothing=self.smoothing)
        with modes.frozen(model):
            gradient, _, _ = modes.input_gradient(model, x, loss_of)
        logits = model(x)
        here, there = loss_of(logits), loss_of(model(x + self.step * self.threat.ascent(gradient)))
        growth = self.threat.eps * (there - here) / self.step
        penalty = (growth.square() / 2 if self.squared else growth).mean()
        loss = self.loss_weight * here.mean() + self.weight * self.ramp(epoch) * penalty
        return loss, {
            "loss": loss.detach(),
            "cross_entropy": here.mean().detach(),
            "penalty": penalty.detach(),
            "accuracy": losses.accuracy(logits, y),
        }

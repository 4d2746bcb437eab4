"""Cross-entropy plus a penalty on its own input gradient (double back-propagation)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value

from trainers import losses, modes
from trainers.ramp import Ramp
from trainers.types import Metrics, Model, Penalty


@dataclass(frozen=True)
class GradientRegularized:
    """``mean_i [ loss_weight · CE_i + weight · ramp(epoch) · penalty(∇_{x_i} CE_i) ]``.

    ``CE_i`` is one and the same soft-target loss in both terms, taken at the clean augmented image, and nothing is
    detached.  The gradient is of the summed loss, so each example's own, whatever the batch size or the number of
    workers, as long as no layer mixes the examples: with ``mode="eval"``, as published, BatchNorm uses its running
    statistics and dropout is off.

    Mixup or label smoothing must keep the cross-entropy away from zero: without them it and its gradient vanish on
    the training points and the penalty is met for free.

    Source: 2409.20139, GradNorm: 0.8 and 1.2, ramp (0, 0.2 an epoch, 1).
    """

    penalty: Penalty
    weight: float = 1.2
    loss_weight: float = 0.8
    ramp: Ramp = Ramp()
    smoothing: float = 0.0
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
        gradient, values, logits = _differentiable_input_gradient(model, x, y, self.smoothing)
        cross_entropy = values.mean()
        penalty = self.penalty(gradient, x).mean()
        loss = self.loss_weight * cross_entropy + self.weight * self.ramp(epoch) * penalty
        return loss, {
            "loss": loss.detach(),
            "cross_entropy": cross_entropy.detach(),
            "penalty": penalty.detach(),
            "accuracy": losses.accuracy(logits, y),
        }


def _differentiable_input_gradient(
    model: Model, x: Tensor, y: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``(gradient, losses (N,), logits)``, through which parameters can be reached.

    ``torch.func`` rather than ``autograd.grad(create_graph=True)``: only this form compiles with ``fullgraph=True``.
    A transform may not write to tensors it captured, so BatchNorm in train mode updates copies of its buffers.
    """
    parameters = dict(model.named_parameters())

    def summed(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, dict[str, Tensor]]]:
        training = any(module.training for module in model.modules())
        buffers = {name: b.clone() for name, b in model.named_buffers()} if training else {}
        logits = functional_call(model, {**parameters, **buffers}, (x,))
        values = losses.cross_entropy(logits, y, smoothing)
        return values.sum(), (values, logits, buffers)

    gradient, (_, (values, logits, buffers)) = grad_and_value(summed, has_aux=True)(x)
    if buffers:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    return gradient, values, logits

"""TRADES: the trade-off between accuracy and robustness as one loss."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainers import losses, modes
from trainers.attacks.pgd import PGD
from trainers.types import Metrics, Model


@dataclass(frozen=True)
class TRADES:
    """``mean_i CE(f(x_i), y_i) + beta · mean_i KL(f(x_i) || f(x_adv_i))``, ``x_adv`` maximising the KL divergence.

    Source: Zhang et al. 2019 (1901.08573), eq. 5; beta 6 for CIFAR-10.  Where we differ from the authors' code: the
    clean prediction is computed once, not in every step; the start is uniform in the ball, not ``0.001·N(0, 1)``.

    Errors: ``ValueError`` for an attack without ``random_start``: at ``x`` the divergence is at its minimum, its
    gradient is zero, and the attack would never leave.
    """

    attack: PGD
    beta: float = 6.0
    smoothing: float = 0.0
    mode: str = "train"
    second_order: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"objective.beta={self.beta:g} must not be negative")
        if not self.attack.random_start:
            raise ValueError(
                "objective.attack.random_start=false leaves TRADES where it starts, since the gradient of the "
                "divergence is zero at x; set it to true"
            )
        losses.check_smoothing(self.smoothing)
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        logits = model(x)
        clean = losses.cross_entropy(logits, y, self.smoothing).mean()
        metrics = {"cross_entropy": clean.detach(), "accuracy": losses.accuracy(logits, y)}
        if self.beta == 0:
            return clean, {"loss": clean.detach(), **metrics}

        with torch.no_grad(), modes.mode(model, self.attack.model_mode == "train"):
            target = losses.log_softmax(model(x))
        x_adv = self.attack.maximise(model, x, lambda z: losses.kl_divergence(losses.log_softmax(z), target), keys)
        divergence = losses.kl_divergence(losses.log_softmax(model(x_adv)), losses.log_softmax(logits)).mean()
        loss = clean + self.beta * divergence
        return loss, {"loss": loss.detach(), "divergence": divergence.detach(), **metrics}

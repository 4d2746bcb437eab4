"""Standard training: the baseline everything else is compared with."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainers import losses, modes
from trainers.types import Metrics, Model


@dataclass(frozen=True)
class Standard:
    """``mean_i CE(f(x_i), y_i)``.  ``smoothing`` is label smoothing, where the data do not bring their own."""

    smoothing: float = 0.0
    mode: str = "train"
    second_order: ClassVar[bool] = False

    def __post_init__(self) -> None:
        losses.check_smoothing(self.smoothing)
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        logits = model(x)
        loss = losses.cross_entropy(logits, y, self.smoothing).mean()
        return loss, {"loss": loss.detach(), "accuracy": losses.accuracy(logits, y)}

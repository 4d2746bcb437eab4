"""A penalty that leaves alone what is small already."""

from dataclasses import dataclass

from torch import Tensor

from trainers.types import Penalty


@dataclass(frozen=True)
class Thresholded:
    """``max(penalty(g_i) - threshold, 0)``: no pressure on examples whose cost is at most ``threshold``.  ``(N,)``

    In the units of ``penalty``: for ``GradientNorm`` the loss that the threat can add to first order.

    Source: 2409.20139's code, 0.001.  Errors: ``ValueError`` for a negative threshold.
    """

    penalty: Penalty
    threshold: float = 0.001

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ValueError(f"penalty.threshold={self.threshold:g} must not be negative; 0 is no threshold")

    def __call__(self, gradient: Tensor, x: Tensor) -> Tensor:
        return (self.penalty(gradient, x) - self.threshold).clamp_min(0)

"""The norm of the input gradient, some channels counting more than others."""

import math
from dataclasses import dataclass

from torch import Tensor

from trainers.threat import Threat


@dataclass(frozen=True)
class ChannelWeighted:
    """``eps · ||w ∘ g_i||_*``, the dual norm of the threat, where ``w`` weighs the channels.  ``(N,)``

    Equal weights of 1 give ``GradientNorm``.

    Source: the green experiment of 2409.20139's code: weights 1, 2, 1 of red, green and blue.
    Errors: ``ValueError`` for a weight that is negative, and for images with another number of channels.
    """

    threat: Threat
    weights: tuple[float, ...] = (1.0, 2.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))  # a config brings a list
        if not self.weights or not all(0 <= weight < math.inf for weight in self.weights):
            raise ValueError(f"penalty.weights={list(self.weights)} must be numbers of 0 or more, one a channel")

    def check(self, shape: tuple[int, ...]) -> None:
        """``ValueError`` if images of ``shape`` (C, H, W) have another number of channels."""
        if shape[0] != len(self.weights):
            raise ValueError(
                f"penalty.weights={list(self.weights)} are {len(self.weights)}, but the images have {shape[0]} "
                "channels: give one for each"
            )

    def __call__(self, gradient: Tensor, x: Tensor) -> Tensor:
        self.check(gradient.shape[1:])
        weights = gradient.new_tensor(self.weights)[:, None, None]
        return self.threat.eps * self.threat.dual_norm(weights * gradient)

"""ReLU whose backward pass is that of a smooth function: which of the two gradients is it that smoothness improves?"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.activations.smooth import positive


class SurrogateReLU(nn.Module):
    """``f(x) = max(x, 0)``, bit for bit; where it is switched on, the backward pass takes ``f'(x) = sigmoid(αx)``, the
    slope of ``log(1 + e^{αx}) / α``, in place of ReLU's step.

    ``inner``: in the attacker's gradient (inner maximisation), which is told apart by ``modes.frozen``.
    ``outer``: in the gradient that the parameters are trained by (outer minimisation).  Both is the published best.
    With ``inner`` the network is attacked through the smooth slope when it is judged, too: judge it under both.

    Source: Xie et al. 2020 (2006.14536), section 3, with Parametric Softplus and ``alpha`` 10.
    """

    def __init__(self, alpha: float = 10.0, inner: bool = True, outer: bool = True) -> None:
        super().__init__()
        self.alpha, self.inner, self.outer = positive(alpha, "surrogate_relu"), inner, outer
        self.attacked = False

    def forward(self, x: Tensor) -> Tensor:
        if self.inner if self.attacked else self.outer:
            return _Surrogate.apply(x, self.alpha)
        return _relu(x)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}, inner={self.inner}, outer={self.outer}"


def _relu(x: Tensor) -> Tensor:
    """By another name: a network that calls ``relu`` is taken for one whose activations cannot be replaced."""
    return F.threshold(x, 0.0, 0.0)


class _Surrogate(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, alpha: float) -> Tensor:
        return _relu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.alpha = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(ctx.alpha * x), None

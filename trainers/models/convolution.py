"""Convolution whose second derivative costs what its first does."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.grad import conv2d_input, conv2d_weight

Geometry = tuple[Any, Any, Any, int]
"""Stride, padding, dilation, groups."""


class Convolution(nn.Conv2d):
    """``nn.Conv2d`` with the same parameters, values and derivatives.

    With ``y = x * w`` and an input gradient ``g = y' *ᵀ w``, the gradient of a penalty on ``g`` needs
    ``∂⟨h, g⟩/∂w``, which is the weight gradient of ``(h, y')``.  torch computes it as a convolution whose kernel is
    the whole of ``y'`` (32×32 in a first layer); asked for as a weight gradient, a GradNorm step of a ResNet-18
    takes a tenth to a quarter less time (``benchmarks/training_cost.py``).  Under the compiler it is ``nn.Conv2d``.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.compiler.is_compiling() or isinstance(self.padding, str) or self.padding_mode != "zeros":
            return super()._conv_forward(input, weight, bias)
        kind = input.device.type
        if torch.is_autocast_enabled(kind):  # what autocast does for the convolution, done before its derivatives
            input, weight = (t.to(torch.get_autocast_dtype(kind)) for t in (input, weight))
        y = _Convolved.apply(input, weight, self.stride, self.padding, self.dilation, self.groups)
        return y if bias is None else y + bias.to(y.dtype)[:, None, None]


def convert(model: nn.Module) -> None:
    """Make every plain ``nn.Conv2d`` of ``model`` a ``Convolution``, in place."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Convolution


class _Convolved(Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, *geometry: Any) -> Tensor:
        return torch.conv2d(x, w, None, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, *ctx.geometry = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, y_gradient: Tensor) -> Any:
        x, w = ctx.saved_tensors
        of_x, of_w = ctx.needs_input_grad[:2]
        return (
            _InputGradient.apply(y_gradient, w, x.shape, *ctx.geometry) if of_x else None,
            conv2d_weight(x, w.shape, y_gradient, *ctx.geometry) if of_w else None,
            *(None,) * 4,
        )


class _InputGradient(Function):
    @staticmethod
    def forward(y_gradient: Tensor, w: Tensor, size: torch.Size, *geometry: Any) -> Tensor:
        return conv2d_input(size, w, y_gradient, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        y_gradient, w, _, *ctx.geometry = inputs
        ctx.save_for_backward(y_gradient, w)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> Any:
        y_gradient, w = ctx.saved_tensors
        of_y, of_w = ctx.needs_input_grad[:2]
        return (
            torch.conv2d(h, w, None, *ctx.geometry) if of_y else None,
            conv2d_weight(h, w.shape, y_gradient, *ctx.geometry) if of_w else None,
            *(None,) * 5,
        )

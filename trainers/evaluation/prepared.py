"""A network made fast for evaluation, where that changes nothing but rounding."""

import copy
import logging
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from trainers.evaluation.meter import Meter
from trainers.modes import input_gradient

TOLERANCE = 1e-4
"""Of the largest entry: how far the logits and gradients of a prepared network may be from the network's own."""

_log = logging.getLogger(__name__)


def prepared(model: nn.Module, x: Tensor, compile: bool = False) -> Meter:
    """``model`` (in eval mode) metered, its BatchNorm folded into convolutions, its channels last.

    ``compile``: through ``torch.compile`` too, once for all batch sizes, which takes seconds to minutes and needs a C++
    compiler on a CPU.  Each change is made to a copy and kept if the copy's logits and input gradients are those of
    ``model`` on ``x`` up to rounding; otherwise it is left out.
    """
    folded = _kept("BatchNorm is not folded", model, lambda: fuse(copy.deepcopy(model).eval()).eval(), x)
    last = _kept("channels stay first", folded, lambda: _ChannelsLast(copy.deepcopy(folded)), x)
    if last is not model:
        last.requires_grad_(False)
    return Meter(_kept("not compiled", last, lambda: _compiled(last), x) if compile else last)


class _ChannelsLast(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.contiguous(memory_format=torch.channels_last))
        return logits


def _compiled(model: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(model, dynamic=True))


def _kept(otherwise: str, model: nn.Module, change: Callable[[], nn.Module], x: Tensor) -> nn.Module:
    """The changed network, if it does what ``model`` does."""
    try:
        changed = change()
        same = all(
            torch.allclose(ours, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))
            for ours, expected in zip(_seen(changed, x), _seen(model, x), strict=True)
        )
    except Exception as error:  # tracing and compiling fail in as many ways as there are networks
        _log.info("%s: %s", otherwise, str(error).splitlines()[0] if str(error) else type(error).__name__)
        return model
    return changed if same else model


def _seen(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the input gradient of each image's largest."""
    gradient, _, logits = input_gradient(model, x, lambda logits: logits.amax(1))
    return logits, gradient

"""What state a network is in, and getting it back: modes, frozen parameters, input gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainers.types import Loss


@contextmanager
def mode(model: nn.Module, train: bool) -> Iterator[None]:
    """Every module in train or eval mode inside; each one's own mode afterwards."""
    before = [(module, module.training) for module in model.modules() if module.training != train]
    for module, _ in before:
        module.training = train
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside: a backward pass then costs 2 forwards instead of 3."""
    live = [p for p in model.parameters() if p.requires_grad]
    for p in live:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in live:
            p.requires_grad_(True)


def input_gradient(model: nn.Module, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """``(gradient (N, C, H, W), losses (N,), logits (N, K))`` of the summed ``loss(model(x))`` with respect to ``x``.

    The sum makes each example's gradient its own, whatever the batch size (in eval mode, or without BatchNorm).
    First order: nothing can be back-propagated through the result.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        losses = loss(logits)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return gradient, losses.detach(), logits.detach()

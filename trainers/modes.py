"""What state a network is in, and getting it back: modes, frozen parameters, input gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from trainers.types import Loss


def check(setting: str, value: str) -> None:
    """``ValueError`` unless ``value`` names a mode."""
    if value not in ("train", "eval"):
        raise ValueError(f"{setting}={value!r} must be 'train' or 'eval'")


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
    """No parameter asks for a gradient inside: a backward pass then costs 2 forwards instead of 3.

    A module that has an ``attacked`` is told so: it is true inside, where only the image's gradient is wanted.
    """
    live = [p for p in model.parameters() if p.requires_grad]
    told: list[Any] = [module for module in model.modules() if getattr(module, "attacked", None) is False]
    for p in live:
        p.requires_grad_(False)
    for module in told:
        module.attacked = True
    try:
        yield
    finally:
        for p in live:
            p.requires_grad_(True)
        for module in told:
            module.attacked = False


def outside_inference(tensor: Tensor) -> Tensor:
    """``tensor``, detached and fit for autograd: what was made under ``torch.inference_mode`` is copied."""
    with torch.inference_mode(False):
        return tensor.clone() if tensor.is_inference() else tensor.detach()


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions and matrix products of float32 in all their bits inside; TF32, the default of convolutions on
    recent GPUs, keeps 10 of 23."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def connected(logits: Tensor, x: Tensor) -> Tensor:
    """``logits`` that depend on ``x`` for autograd: by 0 where the model cuts the graph (it rounds its input, or
    answers with constants), so that its gradient is zero and not an error."""
    if x.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
        return logits + 0 * x.flatten(1).sum(1, keepdim=True).to(logits.dtype)
    return logits


def input_gradient(model: nn.Module, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """``(gradient (N, C, H, W), losses (N,), logits (N, K))`` of the summed ``loss(model(x))`` with respect to ``x``.

    The sum makes each example's gradient its own, whatever the batch size (in eval mode, or without BatchNorm).
    First order: nothing can be back-propagated through the result.  Works for callers under ``no_grad`` or
    ``inference_mode``, if the tensors that ``loss`` holds have passed ``outside_inference``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = outside_inference(x).requires_grad_()
        logits = model(x)
        losses = loss(logits)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return gradient, losses.detach(), logits.detach()


def differentiable_input_gradient(model: nn.Module, x: Tensor, values: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """``(gradient (N, C, H, W), values (N,), logits (N, K))`` of the summed ``values(model(x))`` with respect to ``x``,
    through all of which the parameters can be reached.

    ``torch.func`` rather than ``autograd.grad(create_graph=True)``: only this form compiles with ``fullgraph=True``.
    A transform may not write to tensors it captured, so BatchNorm in train mode updates copies of its buffers.
    """
    parameters = dict(model.named_parameters())

    def summed(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, dict[str, Tensor]]]:
        training = any(module.training for module in model.modules())
        buffers = {name: b.clone() for name, b in model.named_buffers()} if training else {}
        logits = functional_call(model, {**parameters, **buffers}, (x,))
        found = values(logits)
        return found.sum(), (found, logits, buffers)

    gradient, (_, (found, logits, buffers)) = grad_and_value(summed, has_aux=True)(x)
    if buffers:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    return gradient, found, logits

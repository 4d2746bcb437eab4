"""Look at a model in any way, and leave it as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Modes, values of parameters and buffers, ``requires_grad`` and ``.grad`` are afterwards what they were.

    Costs one more copy of the weights.  What a model keeps in plain attributes is not seen.
    """
    modes = [(module, module.training) for module in model.modules()]
    asked = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    gradients = [grad for _, _, grad in asked if grad is not None]
    values = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers(), *gradients)]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, live, gradient in asked:
            parameter.requires_grad_(live)
            parameter.grad = gradient
        for module, held in buffers:
            module._buffers.update(held)
        with torch.no_grad():
            for tensor, value in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)


@contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators start from ``seed`` inside, for models that draw random numbers; they are put back after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def uncompiled() -> Iterator[None]:
    """What ``torch.compile`` made runs as it was written: compiling calls autograd, and again for new batch sizes."""
    with torch.compiler.set_stance("force_eager"):
        yield


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Names of the floating-point tensors whose values differ."""
    return [
        name
        for name, value in before.items()
        if value.is_floating_point() and name in after and not torch.equal(value, after[name])
    ]


def copies(named: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named}

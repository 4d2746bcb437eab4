"""The feature maps of a network: which is its last, and what a layer's holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainers.types import Model


def is_feature_map(value: object, x: Tensor) -> bool:
    """Whether ``value`` is ``(N, C, h, w)`` of more than one pixel, with the image's aspect to a pixel of rounding:
    ``(N, h, w, C)`` and attention's ``(N, heads, tokens, d)`` are not."""
    if not isinstance(value, Tensor) or value.dim() != 4 or not value.is_floating_point():
        return False
    (h, w), (height, width) = value.shape[-2:], x.shape[-2:]
    alike = abs(h * width - w * height) <= max(height, width)
    return alike and h <= height and w <= width and h * w > 1


def last_feature_map(model: Model, x: Tensor) -> str:
    """The name of the module whose output is the last feature map before the logits.

    Errors: ``ValueError`` if there is none, or if tokens ``(N, L, d)`` follow it, as in a vision transformer.
    """
    found, tokens = "", False

    def seen(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            nonlocal found, tokens
            if is_feature_map(output, x):
                found, tokens = name, False
            elif isinstance(output, Tensor) and output.dim() == 3:
                tokens = True

        return hook

    hooks = [module.register_forward_hook(seen(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not found or tokens:
        why = f"tokens follow {found}" if found else "no layer's output is (N, C, h, w) of more than one pixel"
        raise ValueError(
            f"localisation.layer is not given and this network has no last feature map at {tuple(x.shape[-2:])} "
            f"({why}): name a layer, enlarge the images, or use the gradient map, which needs none"
        )
    return found


def layer_of(model: Model, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if name not in modules or not name:
        ends = [other for other in modules if other and other.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
        known = ends or [other for other in modules if other]
        raise ValueError(f"localisation.layer={name!r} is no layer of this network: there is {', '.join(known[:8])}")
    return modules[name]


@contextmanager
def kept(model: Model, name: str, x: Tensor) -> Iterator[list[Tensor]]:
    """Inside, a forward leaves the layer's feature map in the list: a leaf that asks for its gradient.

    What follows works on a copy, so that an in-place activation or sum changes nothing in the list.
    A layer that is called several times leaves its last.
    """
    found: list[Tensor] = []

    def hook(module: nn.Module, inputs: object, output: Any) -> Tensor:
        if not is_feature_map(output, x):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"localisation.layer={name} gives {shape}, which is no feature map (N, C, h, w) of images "
                f"{tuple(x.shape[-2:])}: name a convolution, or a stage of them"
            )
        found[:] = [output.detach().requires_grad_()]
        return found[0].clone()

    handle = layer_of(model, name).register_forward_hook(hook)
    try:
        yield found
    finally:
        handle.remove()

"""Networks that can be differentiated twice, which a gradient penalty needs.

No fused attention kernel has a second derivative: torch's ``derivatives.yaml`` holds no formula for the backward of
flash, memory-efficient or cuDNN attention (pytorch/pytorch#116350).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn, use_fused_attn
from torch import nn

from trainers.models.calls import Calls
from trainers.models.convolution import convert
from trainers.modes import mode

_REMEDY = (
    "choose one that can (resnet*, convnext*, vit_*, deit_*, swin_*), or an objective without an input gradient "
    "(objective=pgd)"
)


@contextmanager
def unfused() -> Iterator[None]:
    """timm builds its attention from plain matrix products inside; its own setting is back afterwards."""
    fused, experimental = use_fused_attn(), use_fused_attn(experimental=True)
    set_fused_attn(False)
    try:
        yield
    finally:
        set_fused_attn(fused, experimental)


def prepare(model: nn.Module) -> None:
    """Turn off what breaks a second derivative: fused attention, and activations that overwrite their input; and
    take convolutions whose second derivative is cheap."""
    convert(model)
    for module in model.modules():
        for flag in ("fused_attn", "inplace"):
            if isinstance(getattr(module, flag, None), bool):
                setattr(module, flag, False)


def check_second_order(model: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Differentiate ``model`` twice on one image ``(C, H, W)``; nothing about the model changes.

    Attention is also refused where this machine's kernel happens to manage, because another device's would not.

    Errors: ``ValueError`` when a second derivative is missing.
    """
    home = next(model.parameters())
    x = torch.rand(1, *input_size, generator=torch.Generator().manual_seed(0)).to(home.device, home.dtype)
    x.requires_grad_()
    parameters = [p for p in model.parameters() if p.requires_grad]
    reason = ""
    with mode(model, train=False), torch.enable_grad(), Calls() as calls:
        try:
            loss = F.cross_entropy(model(x), torch.zeros(1, dtype=torch.int64, device=home.device))
            (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
            torch.autograd.grad(loss + gradient.abs().sum(), parameters, allow_unused=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
    if "fused attention" in calls.seen:
        reason = "it calls scaled_dot_product_attention, whose fused kernels have no second derivative"
    if reason:
        name = getattr(model, "spec", {}).get("name", type(model).__name__)
        raise ValueError(f"model.name={name!r} cannot train under a gradient penalty: {reason}; {_REMEDY}")

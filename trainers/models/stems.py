"""How a network made for 224 pixels meets images of 32 and below: it keeps its resolution at the entrance.

Convolutional networks: the first convolution becomes 3x3 with stride 1 and the max-pool behind it goes (the CIFAR
form of He et al. 2016, 1512.03385, section 4.2).  Patch networks: smaller patches, so that enough tokens are left.
"""

from math import gcd
from typing import Any

from timm.models import get_pretrained_cfg
from torch import nn

SMALL = 32
"""Images up to this many pixels a side get a small stem under ``stem="auto"``."""

_POOLS = ("maxpool", "stem.pool", "features.pool0")
"""The max-pool of timm's ResNet, ResNetV2 and DenseNet stems."""


def wanted(stem: str, size: tuple[int, int]) -> bool:
    """Whether ``stem`` asks for the small one at ``size`` (H, W)."""
    if stem not in ("auto", "small", "standard"):
        raise ValueError(f"model.stem={stem!r} is unknown; choose auto, small or standard")
    return stem == "small" or (stem == "auto" and max(size) <= SMALL)


def patches(name: str, size: tuple[int, int], small: bool) -> dict[str, Any]:
    """The arguments that fit a network of fixed input size (ViT, Swin, Mixer ...) to ``size``; none for others.

    Small: the largest patches that leave 7 tokens a side, or 14 where a Swin merges them three times over.
    """
    cfg = get_pretrained_cfg(name)
    if cfg is None or not cfg.fixed_input_size:
        return {}
    arguments: dict[str, Any] = {}
    if small or tuple(cfg.input_size[1:]) != size:
        arguments["img_size"] = list(size)
    if small:
        side, tokens = gcd(*size), 14 if "swin" in name else 7
        patch = next(p for p in range(max(1, side // tokens), 0, -1) if side % p == 0)
        arguments["patch_size"] = patch
        if "swin" in name:
            arguments["window_size"] = 7 if (side // patch) % 7 == 0 else 4
    return arguments


def shrink(network: nn.Module, pretrained: bool) -> bool:
    """Make a convolutional network's stem small, in place; ``False`` where it is not known how.

    Errors: ``ValueError`` where that would throw away pretrained weights.
    """
    path = getattr(network, "pretrained_cfg", {}).get("first_conv")
    if not isinstance(path, str):
        return False
    conv = network.get_submodule(path)
    if not isinstance(conv, nn.Conv2d):
        return False
    if max(conv.kernel_size) > 3:
        if type(conv) is not nn.Conv2d:
            return False
        if pretrained:
            raise ValueError(
                f"model.stem=small would replace the {conv.kernel_size[0]}x{conv.kernel_size[1]} convolution "
                f"{path!r} that model.weights=timm brings; take model.stem=standard and larger images, or "
                "model.weights=null"
            )
        network.set_submodule(path, _three_by_three(conv))
    else:
        conv.stride = (1, 1)
    for name in _POOLS:
        if isinstance(dict(network.named_modules()).get(name), nn.MaxPool2d):
            network.set_submodule(name, nn.Identity())
    return True


def _three_by_three(conv: nn.Conv2d) -> nn.Conv2d:
    """As ``conv``, but 3x3 with stride 1, newly drawn (He et al. 2015, 1502.01852)."""
    new = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new

"""A residual network small enough for a laptop core, under a timm name."""

from typing import Any

from timm.models import register_model
from torch import Tensor, nn


class Block(nn.Module):
    """``act(x + BN(conv(act(BN(conv(x))))))``, 3x3, same width and resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = _conv(width, width), nn.BatchNorm2d(width), nn.ReLU()
        self.conv2, self.bn2, self.act2 = _conv(width, width), nn.BatchNorm2d(width), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(x + self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))


class HoldfastResNet(nn.Module):
    """A 3x3 stem, ``blocks`` residual blocks of ``width`` channels at full resolution, mean over space, one linear map.

    For images of 8 to 32 pixels with any number of channels.  Seven blocks are deep enough to show what an
    activation without a second derivative does to a gradient penalty; three are not.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, width: int = 24, blocks: int = 3) -> None:
        super().__init__()
        for name, value in (("width", width), ("blocks", blocks)):
            if value < 1:
                raise ValueError(f"model.arguments.{name}={value} must be 1 or more")
        self.num_classes, self.num_features = num_classes, width
        self.pretrained_cfg = {"architecture": "holdfast_resnet", "first_conv": "conv1", "classifier": "fc"}
        self.conv1, self.bn1, self.act1 = _conv(in_chans, width), nn.BatchNorm2d(width), nn.ReLU()
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.fc = nn.Linear(width, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.blocks(self.act1(self.bn1(self.conv1(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


@register_model
def holdfast_resnet(pretrained: bool = False, **arguments: Any) -> HoldfastResNet:
    """``arguments``: ``width``, ``blocks``.  There are no pretrained weights."""
    if pretrained:
        raise RuntimeError("No pretrained weights exist for holdfast_resnet")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # timm's factory passes these to all
        arguments.pop(name, None)
    return HoldfastResNet(**arguments)

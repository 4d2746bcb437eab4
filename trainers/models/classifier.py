"""Pixels in, logits out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """``(x - mean) / std`` a channel; constants, not trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Classifier(nn.Module):
    """``logits (N, K) = network(normalize(x))`` of pixels ``x`` in [0, 1], so that an attack's ``eps`` means pixels.

    ``spec``: a plain dict of everything ``trainers.models.create`` needs to build the same network again.
    """

    def __init__(self, normalize: Normalize, network: nn.Module, spec: dict[str, Any]) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.normalize(x))

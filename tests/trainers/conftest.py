"""Networks and images small enough that a law can be checked in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

Build = Callable[..., nn.Module]


def _small_net(
    activation: Callable[[], nn.Module] = nn.GELU, norm: bool = True, dropout: float = 0.0, seed: int = 0
) -> nn.Module:
    """A conv net of 5 classes on ``(3, 6, 6)`` images in float64, in eval mode, with used BatchNorm statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            activation(),
            nn.Conv2d(6, 4, 3, stride=2, padding=1),
            activation(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(36, 5),
        ).double()
        for parameter in model.parameters():
            parameter.data.mul_(1.5)
        model.train()
        model(torch.rand(32, 3, 6, 6, dtype=torch.float64))
        return model.eval()


@pytest.fixture
def small_net() -> Build:
    return _small_net


@pytest.fixture
def images() -> Tensor:
    """``(8, 3, 6, 6)`` float64 in [0, 1], some pixels at the very ends."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(8, 3, 6, 6, generator=generator, dtype=torch.float64)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = 0.0, 1.0
    return x


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])


@pytest.fixture
def keys() -> Tensor:
    """Ids as a data set gives them: neither dense nor ordered."""
    return torch.tensor([7, 3, 1_000_003, 12, 5, 99, 40_000, 2])


@pytest.fixture
def soft_labels() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(8, 5, generator=generator, dtype=torch.float64).softmax(1)

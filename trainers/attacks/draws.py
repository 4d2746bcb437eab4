"""Where a search gets its random numbers: each example from its own stream, or the batch from one generator."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from trainers import noise

Part = int | Tensor
"""One number for all examples, or ``(N,) int64``."""


class Draws(Protocol):
    """Random tensors ``(N, *shape)`` for the examples of ``keys: (N,) int64``; ``parts`` name the draw.

    ``shared`` says that the reference implementation draws these numbers once for the whole batch.
    """

    def uniform(self, keys: Tensor, parts: Sequence[Part], shape: Sequence[int], shared: bool = False) -> Tensor:
        """In [0, 1), float32."""
        ...

    def normal(self, keys: Tensor, parts: Sequence[Part], shape: Sequence[int]) -> Tensor:
        """Standard normal, float32."""
        ...


class Keyed:
    """A pure function of ``(keys, parts)``: the same for any batch, order or machine, and after a restart."""

    def uniform(self, keys: Tensor, parts: Sequence[Part], shape: Sequence[int], shared: bool = False) -> Tensor:
        return noise.uniform(noise.stream(keys, *parts), shape)

    def normal(self, keys: Tensor, parts: Sequence[Part], shape: Sequence[int]) -> Tensor:
        return noise.normal(noise.stream(keys, *parts), shape)


class Sequential:
    """One generator on the CPU, drawn from in the order of the calls: what AutoAttack's authors' code does.

    The numbers an example gets depend on the batch it is in, and ``keys`` and ``parts`` are not looked at.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, keys: Tensor, parts: Sequence[Part], shape: Sequence[int], shared: bool = False) -> Tensor:
        drawn = torch.rand((1 if shared else len(keys), *shape), generator=self._generator)
        return drawn.to(keys.device).expand(len(keys), *shape)

    def normal(self, keys: Tensor, parts: Sequence[Part], shape: Sequence[int]) -> Tensor:
        return torch.randn((len(keys), *shape), generator=self._generator).to(keys.device)

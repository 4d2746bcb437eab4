"""What a model is judged on: examples with ids, any of which can be had at any time."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from trainers.types import Batch


class Exam(Protocol):
    """``ids``, ``labels``: ``(n,) int64`` on the CPU, the ids unique.  ``corrupt``: the ids of images that could not be
    read, with their names; such an example counts as wrong.  ``trainers.data.held_out.HeldOut`` is one."""

    @property
    def ids(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def corrupt(self) -> dict[int, str]: ...

    def batch(self, rows: Tensor, device: str | torch.device = "cpu") -> Batch:
        """The examples at ``rows: (N,) int64``, pixels in [0, 1]."""
        ...


@dataclass(frozen=True)
class Given:
    """An exam of tensors: ``x: (n, C, H, W)`` in [0, 1], ``labels`` and ``ids: (n,) int64``."""

    x: Tensor
    labels: Tensor
    ids: Tensor
    corrupt: dict[int, str] = field(default_factory=dict)

    def batch(self, rows: Tensor, device: str | torch.device = "cpu") -> Batch:
        return Batch(*(part[rows].to(device) for part in (self.x, self.labels, self.ids)))

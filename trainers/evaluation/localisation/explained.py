"""A map of an image: how much each pixel speaks for a class."""

from typing import Protocol

import torch
from torch import Tensor

from trainers import losses
from trainers.types import Model


class ClassMap(Protocol):
    """Maps ``(N, H, W)`` in [0, 1] of ``x`` for the classes ``y``; without ``y``, for the classes that the model
    predicts.  All 0 where nothing speaks for the class, or where what speaks is not a finite number.

    An image's map depends on that image alone.  The model is in eval mode inside, and is left as it was.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, model: Model, x: Tensor, y: Tensor | None = None) -> Tensor: ...


def explained(logits: Tensor, y: Tensor | None) -> Tensor:
    """The classes ``(N,)`` to explain."""
    return logits.argmax(1) if y is None else losses.hard(y)


def of_largest(maps: Tensor) -> Tensor:
    """Each of ``(N, H, W)``, at least 0, divided by its largest value; zeros where that is 0 or not finite."""
    largest = maps.flatten(1).amax(1)[:, None, None]
    usable = largest.isfinite() & (largest > 0)
    return torch.where(usable, maps / torch.where(usable, largest, 1), 0)

"""Augmentation of a whole uint8 batch on its device: flip, shift, cutout, each drawn per example."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import noise

FLIP, ROW, COLUMN, HOLE = range(4)


@dataclass(frozen=True)
class Augment:
    """Mirrored with probability ``flip``; moved by up to ``shift`` pixels each way (the pad-and-crop of CIFAR
    training; pixels from outside are black, or mirrored with ``padding="reflect"``); a square of ``cutout`` pixels,
    centred anywhere, filled with the data's mean.

    Each draw is keyed by (example id, seed, epoch), so the same whatever the batch, device or resume.
    Source: He et al. 2016 (1512.03385) section 4.2 for flip and shift, DeVries and Taylor 2017 (1708.04552) for cutout.
    """

    flip: float = 0.5
    shift: int = 4
    cutout: int = 0
    padding: str = "zeros"

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"data.augment.flip={self.flip} must be a probability in [0, 1]")
        for name in ("shift", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"data.augment.{name}={getattr(self, name)} pixels must not be negative; 0 switches it off"
                )
        if self.padding not in ("zeros", "reflect"):
            raise ValueError(f"data.augment.padding={self.padding!r} must be 'zeros' or 'reflect'")

    def check(self, input_size: Sequence[int]) -> None:
        """Moves and holes must leave something of ``input_size`` images."""
        side = min(input_size[1:])
        for name in ("shift", "cutout"):
            if getattr(self, name) >= side:
                raise ValueError(
                    f"data.augment.{name}={getattr(self, name)} would leave nothing of {side}-pixel images: "
                    f"set it below {side}"
                )

    def __call__(self, images: Tensor, rows: Tensor, keys: Tensor, mean: Sequence[float]) -> Tensor:
        """``images[rows]``, augmented, as float in [0, 1].

        ``images``: all of them, ``(M, C, H, W) uint8``; ``rows``: ``(N,)``; ``keys``: ``(N,)`` of (id, seed, epoch).
        Shift and flip are one gather, so each pixel is touched once.
        """
        height, width = images.shape[2:]
        row = self._moved(height, keys, ROW)
        column = self._moved(width, keys, COLUMN)
        if self.flip > 0:
            mirrored = noise.uniform(noise.stream(keys, FLIP), ()) < self.flip
            column = torch.where(mirrored[:, None], column.flip(1), column)
        inside = None
        if self.shift > 0 and self.padding == "zeros":
            inside = _within(row, height)[:, None, :, None] & _within(column, width)[:, None, None, :]
        row, column = _reflected(row, height), _reflected(column, width)
        channel = torch.arange(images.shape[1], device=images.device)
        x = images[rows[:, None, None, None], channel[:, None, None], row[:, None, :, None], column[:, None, None, :]]
        x = x.float().div_(255)
        x = x if inside is None else x * inside
        return self._holed(x, keys, mean) if self.cutout > 0 else x

    def _moved(self, side: int, keys: Tensor, axis: int) -> Tensor:
        """``(N, side)`` source coordinates, which may lie outside."""
        place = torch.arange(side, device=keys.device).expand(len(keys), side)
        if self.shift == 0:
            return place
        return place + (noise.integers(noise.stream(keys, axis), 2 * self.shift + 1) - self.shift)[:, None]

    def _holed(self, x: Tensor, keys: Tensor, mean: Sequence[float]) -> Tensor:
        centre = noise.uniform(noise.stream(keys, HOLE), (2,))
        rows, columns = (
            ((torch.arange(side, device=x.device) - (c * side).floor()[:, None]) + self.cutout // 2)
            for side, c in zip(x.shape[2:], centre.unbind(1), strict=True)
        )
        hole = _within(rows, self.cutout)[:, None, :, None] & _within(columns, self.cutout)[:, None, None, :]
        return torch.where(hole, torch.tensor(list(mean), device=x.device)[:, None, None], x)


def _within(place: Tensor, side: int) -> Tensor:
    return (place >= 0) & (place < side)


def _reflected(place: Tensor, side: int) -> Tensor:
    """Coordinates outside mirrored at the edge pixel: -1 becomes 1."""
    place = place.abs()
    return torch.where(place >= side, 2 * (side - 1) - place, place)

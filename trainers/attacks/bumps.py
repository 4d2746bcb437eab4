"""The smooth perturbations that Square puts into windows of the image under an L2 or L1 threat."""

from functools import lru_cache

import torch
from torch import Tensor


def placed(table: Tensor, side: Tensor, turned: Tensor, top: Tensor, left: Tensor, x: Tensor) -> Tensor:
    """``(N, 1, H, W)``: each example's bump, of its side and direction, at its place; zero around it."""
    row, column = (torch.arange(length, device=x.device) for length in x.shape[2:])
    largest = table.shape[1]
    down = (row - top[:, None])[:, :, None].expand(-1, -1, len(column))
    across = (column - left[:, None])[:, None, :].expand(-1, len(row), -1)
    inside = (down >= 0) & (down < side[:, None, None]) & (across >= 0) & (across < side[:, None, None])
    down, across = down.clamp(0, largest - 1), across.clamp(0, largest - 1)
    first, second = torch.where(turned[:, None, None], across, down), torch.where(turned[:, None, None], down, across)
    return (table[side[:, None, None] - 1, first, second] * inside)[:, None]


def of_side(side: int, norm: str, turned: Tensor, x: Tensor) -> Tensor:
    """``(N, side, side)``."""
    bump = _bump(side, norm).to(x)
    return torch.where(turned[:, None, None], bump.T, bump)


@lru_cache(maxsize=8)
def every_side(largest: int, norm: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(largest, largest, largest)``: the bump of each side from 1 on, in the upper left corner."""
    table = torch.zeros(largest, largest, largest)
    for side in range(1, largest + 1):
        table[side - 1, :side, :side] = _bump(side, norm)
    return table.to(device, dtype)


@lru_cache(maxsize=512)
def _bump(side: int, norm: str) -> Tensor:
    """Two hills of opposite sign, one above the other, of norm 1 together."""
    upper = _hill(side // 2, side, norm)
    return _scaled(torch.cat([upper, -_hill(side - side // 2, side, norm)]), norm)


def _hill(height: int, width: int, norm: str) -> Tensor:
    """Nested rectangles round the middle, the k-th adding ``1/k²`` (L1: ``1/k⁴``); norm 1."""
    hill = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for k in range(max(top, left) + 1):
        rows = slice(max(top - k, 0), min(top + k + 1, height))
        columns = slice(max(left - k, 0), min(left + k + 1, width))
        hill[rows, columns] += 1 / (k + 1) ** (4 if norm == "L1" else 2)
    return _scaled(hill, norm)


def _scaled(hill: Tensor, norm: str) -> Tensor:
    return hill / (hill.abs().sum() if norm == "L1" else hill.square().sum().sqrt()).clamp_min(1e-12)

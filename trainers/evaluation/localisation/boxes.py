"""Boxes ``(left, top, right, bottom)`` in pixels: a map's, and how two of them overlap.

A box goes along pixels' edges: the pixel in row ``i`` and column ``j`` fills ``(j, i, j + 1, i + 1)``.
"""

import numpy as np
import torch
from torch import Tensor


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Area of the intersection over that of the union: ``(N, 4)`` and ``(M, 4)`` to ``(N, M)``; 0 without a union.

    Sides are cut at 0: two negative ones, of boxes that are apart both ways, would make a positive area.
    """
    a, b = a[:, None].double(), b[None].double()
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    shared = sides.clamp_min(0).prod(-1)
    union = area(a) + area(b) - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0)


def area(boxes: Tensor) -> Tensor:
    """``(..., 4)`` to ``(...)``."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def check_threshold(threshold: float) -> None:
    """``ValueError`` for a threshold outside [0, 1)."""
    if not 0 <= threshold < 1:
        raise ValueError(f"localisation.threshold={threshold:g} is a share of a map's largest value: set it in [0, 1)")


def find_boxes(maps: Tensor, threshold: float) -> Tensor:
    """``(N, 4) float64``: around the largest connected part of each map ``(N, H, W)`` above ``threshold`` times its
    largest value; pixels that touch at a corner are connected, and the first of equal parts is taken.

    ``(0, 0, 0, 0)``, which overlaps with nothing, where a map has nothing above 0.

    Source: Zhou et al. 2016 (1512.04150).
    Errors: ``ValueError`` for a threshold outside [0, 1); ``ImportError`` without scipy.
    """
    check_threshold(threshold)
    above = maps > threshold * maps.flatten(1).amax(1)[:, None, None]
    above &= maps > 0
    return torch.tensor([_around_largest(mask) for mask in above.cpu().numpy()], dtype=torch.float64).reshape(-1, 4)


def _around_largest(mask: np.ndarray) -> tuple[int, int, int, int]:
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError("boxes need scipy to find the connected parts of a map: pip install scipy") from error
    parts, found = ndimage.label(mask, structure=np.ones((3, 3)))
    if not found:
        return 0, 0, 0, 0
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    rows, columns = np.nonzero(parts == largest)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

"""Boxes ``(left, top, right, bottom)`` along pixels' edges, checked against their image and carried with it."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from trainers.data.files import Files
from trainers.data.photographic import Photographic, Size

ROUNDING = 1.0
"""Pixels that a box may stand out of its image, as some count pixels from 1; what stands out is cut off."""


class Boxed(NamedTuple):
    """``boxes (B, 4) float64`` in an image of ``width x height`` pixels."""

    boxes: Tensor
    width: int
    height: int


def image_size(files: Files, path: str) -> tuple[int, int]:
    """``(width, height)`` from the head of an image; ``ValueError`` if it is missing or no image."""
    try:
        with files.open(path) as file, Image.open(file) as image:
            return image.size
    except FileNotFoundError as error:
        raise ValueError(f"{path} is annotated and missing: put the image there, or take its annotation out") from error
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is annotated and no image that Pillow can open: repair it ({error})") from error


def checked(sides: tuple[float, float, float, float], width: int, height: int, where: str) -> tuple[float, ...]:
    """The box, cut at the image's edges; ``where`` (file and line) goes into the ``ValueError``."""
    left, top, right, bottom = sides
    shown = f"{where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
    if not all(math.isfinite(side) for side in sides):
        raise ValueError(f"{shown} is not finite: correct the line")
    if right <= left or bottom <= top:
        raise ValueError(f"{shown} has no area: width and height must be above 0; correct or remove it")
    if min(left, top) < -ROUNDING or right > width + ROUNDING or bottom > height + ROUNDING:
        raise ValueError(f"{shown} stands out of its image of {width}x{height} pixels: correct it, or the image")
    cut = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise ValueError(f"{shown} lies beside its image of {width}x{height} pixels: correct it, or the image")
    return cut


def carried(labels: Mapping[int, Boxed], input_size: Size, transform: Photographic) -> tuple[dict[int, Tensor], int]:
    """``({id: boxes (B', 4)}, dropped)`` in the pixels of the images that ``transform.evaluation(input_size)`` gives.

    The shorter side becomes ``floor(S / crop_pct)``, the longer its share of that, rounded down; then ``S x S`` is cut
    at the centre.  A box follows and is cut off at the edges; one that is cropped away whole is dropped and counted,
    and its image stays, with the boxes that are left.

    Errors: ``ValueError`` for an ``input_size`` that is not square.
    """
    _, height, width = input_size
    if height != width:
        raise ValueError(f"data.input_size={list(input_size)}: boxes are carried to square images only; set H = W")
    shorter = math.floor(width / transform.crop_pct)
    followed = {key: _cropped(boxed, shorter, width) for key, boxed in labels.items()}
    before = sum(len(boxed.boxes) for boxed in labels.values())
    return followed, before - sum(len(boxes) for boxes in followed.values())


def _cropped(boxed: Boxed, shorter: int, side: int) -> Tensor:
    old = boxed.width, boxed.height
    new = [shorter if size == min(old) else int(shorter * size / min(old)) for size in old]
    scale = torch.tensor([n / o for n, o in zip(new, old, strict=True)], dtype=torch.float64)
    corner = torch.tensor([round((n - side) / 2) for n in new], dtype=torch.float64)
    boxes = (boxed.boxes.double() * scale.repeat(2) - corner.repeat(2)).clamp(0, side)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]

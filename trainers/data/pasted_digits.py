"""scikit-learn's digits, enlarged and pasted somewhere on a cluttered canvas: small images with true boxes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers import noise
from trainers.data import checks
from trainers.data.digits import DigitExamples, Digits
from trainers.data.in_memory import InMemory

PIECE = 5
"""Pixels along a piece of clutter, of an enlarged digit: too small to be read."""


class PastedExamples(InMemory):
    """``boxes``: by example id ``(1, 4) float64``, ``(left, top, right, bottom)`` along pixels' edges, around all that
    the digit's ink fills."""

    def __init__(self, digits: DigitExamples, settings: "PastedDigits") -> None:
        ink = np.stack([np.asarray(digits.image(i)) for i in range(len(digits))])
        ink = ink.repeat(settings.scale, 1).repeat(settings.scale, 2)
        keys = noise.stream(digits.ids, settings.seed)
        images = settings.clutter_of(keys, ink)
        places = _placed(images, ink, keys)
        self.boxes = {int(key): place[None] for key, place in zip(digits.ids, places, strict=True)}
        super().__init__(images, digits.labels, digits.ids, "pasted digit")


@dataclass(frozen=True)
class PastedDigits:
    """Grey images of ``canvas x canvas`` pixels.  A digit, each of its pixels ``scale x scale``, lies anywhere on it;
    behind it are ``pieces`` of digits of the split, 5x5 pixels each, and noise uniform in [0, ``clutter``].

    Where two meet, the brighter shows.  Place, pieces and noise are keyed by ``seed`` and the example, whose id, label
    and split are those of ``Digits``.

    Errors: ``ValueError`` for a canvas that is smaller than the digit, and for other settings out of their range.
    """

    canvas: int = 32
    scale: int = 2
    clutter: float = 0.25
    pieces: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least("data.source.scale", self.scale, 1)
        checks.at_least("data.source.pieces", self.pieces, 0)
        if self.canvas < 8 * self.scale:
            raise ValueError(
                f"data.source.canvas={self.canvas} is smaller than a digit of {8 * self.scale} pixels: enlarge it, or "
                f"lower data.source.scale={self.scale}"
            )
        if not 0 <= self.clutter <= 1:
            raise ValueError(f"data.source.clutter={self.clutter:g} is a grey level: set it in [0, 1]; 0 is none")

    @property
    def classes(self) -> tuple[str, ...]:
        return Digits().classes

    def split(self, name: str) -> PastedExamples:
        return PastedExamples(Digits().split(name), self)

    def clutter_of(self, keys: Tensor, ink: np.ndarray) -> np.ndarray:
        """``(N, canvas, canvas) uint8``: noise and pieces of ``ink (N, h, w)``, without the digits."""
        grey = noise.uniform(noise.stream(keys, 0), (self.canvas, self.canvas)) * self.clutter * 255
        images = grey.round().to(torch.uint8).numpy()
        side = min(PIECE, ink.shape[1])
        for k in range(self.pieces):
            whose, top, left, row, column = (
                noise.integers(noise.stream(keys, 1, k, part), high).tolist()
                for part, high in enumerate(
                    [len(ink), ink.shape[1] - side + 1, ink.shape[2] - side + 1] + 2 * [self.canvas - side + 1]
                )
            )
            for i in range(len(keys)):
                piece = ink[whose[i], top[i] : top[i] + side, left[i] : left[i] + side]
                _brighten(images[i, row[i] : row[i] + side, column[i] : column[i] + side], piece)
        return images


def _placed(images: np.ndarray, ink: np.ndarray, keys: Tensor) -> Tensor:
    """Pastes each of ``ink`` into its image, so that its whole frame fits: ``(N, 4) float64``, where its ink lies."""
    side = ink.shape[1]
    room = images.shape[1] - side + 1
    tops, lefts = (noise.integers(noise.stream(keys, 2, part), room).tolist() for part in (0, 1))
    boxes = []
    for image, digit, top, left in zip(images, ink, tops, lefts, strict=True):
        _brighten(image[top : top + side, left : left + side], digit)
        rows, columns = digit.nonzero()
        boxes.append([left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1])
    return torch.tensor(np.array(boxes), dtype=torch.float64)


def _brighten(part: np.ndarray, by: np.ndarray) -> None:
    np.maximum(part, by, out=part)

"""A made world of small pictures whose classes are combinations of six visible attributes."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from trainers import noise
from trainers.data import checks
from trainers.data.in_memory import InMemory

ATTRIBUTES = (
    ("warm", "cool"),
    ("large", "small"),
    ("round", "square"),
    ("striped", "plain"),
    ("high", "low"),
    ("framed", "bare"),
)
"""What +1 and -1 mean, of each attribute."""
SPLITS = ("train", "test", "unseen")
_MOST = 1 << 20  # ids leave room for so many examples of a class in a split


@dataclass(frozen=True)
class AttributeWorld:
    """All 64 combinations of ``ATTRIBUTES`` are classes: the object's colour, size, shape, stripes and height, and a
    frame around the picture.  Position, brightness, background, paleness, phase of the stripes and pixel noise (of
    standard deviation ``noise``) say nothing about the class and are keyed by the example's id.  Discs and
    squares of one size have one area.

    The 16 combinations with ``warm·large·round = striped·high·framed = +1`` (as signs) are never trained on.  A
    quarter of a factorial design: among the seen 48, as among the unseen 16, each attribute is there half of the time
    and no two go together, ``SᵀS = 48 I`` and ``Sᵀ1 = 0``, so that nothing about an attribute is learnt from another.

    Classes 0 ... 47 are the seen, 48 ... 63 the unseen.  ``train``, ``test``: examples a class, ``test`` of the unseen
    too.  Splits: "train" and "test" of the seen, and "unseen".  Pictures are RGB, ``side`` by ``side``.

    Source: fractional factorial designs, Box and Hunter, *The 2^(k-p) fractional factorial designs*, Technometrics 3
    (1961) 311-351; the world itself is made for this library.
    Errors: ``ValueError`` for settings outside their range, and for a split it has not.
    """

    side: int = 16
    train: int = 40
    test: int = 10
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least("data.source.side", self.side, 16)
        for name in ("train", "test"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise ValueError(f"data.source.{name}={getattr(self, name)} examples a class must be in [1, {_MOST}]")
        if not 0 <= self.noise <= 0.5:
            raise ValueError(f"data.source.noise={self.noise:g} must be in [0, 0.5]: pixels are in [0, 1]")

    @property
    def attributes(self) -> Tensor:
        """``(64, 6) float64``, +1 or -1: all classes are vectors of one length, so that a product favours none."""
        rows = torch.tensor(list(product((1.0, -1.0), repeat=6)), dtype=torch.float64)
        unseen = (rows[:, :3].prod(1) > 0) & (rows[:, 3:].prod(1) > 0)
        return torch.cat([rows[~unseen], rows[unseen]])

    @property
    def seen(self) -> Tensor:
        return torch.arange(48)

    @property
    def unseen(self) -> Tensor:
        return torch.arange(48, 64)

    @property
    def all_classes(self) -> tuple[str, ...]:
        """Names in the order of ``attributes``: "warm-large-round-striped-high-bare" ..."""
        return tuple(
            "-".join(words[int(sign < 0)] for words, sign in zip(ATTRIBUTES, row, strict=True))
            for row in self.attributes.tolist()
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the seen: what a network is trained to tell apart."""
        return self.all_classes[:48]

    def split(self, name: str) -> "AttributeExamples":
        if name not in SPLITS:
            raise ValueError(f"the attribute world has no split {name!r}: {', '.join(SPLITS)}")
        return AttributeExamples(self, name)

    @property
    def beyond(self) -> "Unseen":
        """The unseen classes as a source whose test split they are, for readers that know no other."""
        return Unseen(self)


@dataclass(frozen=True)
class Unseen:
    """The unseen classes of ``world``, numbered as there, among the names of all 64."""

    world: AttributeWorld

    @property
    def classes(self) -> tuple[str, ...]:
        return self.world.all_classes

    def split(self, name: str) -> "AttributeExamples":
        if name != "test":
            raise ValueError(f"unseen classes have no split {name!r}: test, nothing of them is trained on")
        return self.world.split("unseen")


class AttributeExamples(InMemory):
    def __init__(self, world: AttributeWorld, split: str) -> None:
        classes = world.unseen if split == "unseen" else world.seen
        each = torch.arange(world.train if split == "train" else world.test)
        self._world, self._split = world, split
        labels = classes.repeat_interleave(len(each))
        ids = (labels * len(SPLITS) + SPLITS.index(split)) * _MOST + each.repeat(len(classes))
        signs = world.attributes[labels].float()
        images = _pictures(signs, noise.stream(ids, world.seed), world.side, world.noise)
        super().__init__(images, labels, ids, split)

    def name(self, i: int) -> str:
        number = int(self.ids[i]) % _MOST
        return f"{self._world.all_classes[int(self.labels[i])]} {self._split} {number}"


def _pictures(signs: Tensor, keys: Tensor, side: int, grain: float) -> np.ndarray:
    """``(n, side, side, 3) uint8`` of ``signs (n, 6)``.  Lengths are in sixteenths of the side."""
    has = (signs > 0).unbind(1)
    warm, large, rounded, striped, high, framed = (flag[:, None, None] for flag in has)
    shift_x, shift_y, light, level, phase, pale = noise.uniform(noise.stream(keys, 0), (6, 1, 1)).unbind(1)
    at = (torch.arange(side) + 0.5) * 16 / side
    dx = at[None, None, :] - 8 - 5 * (shift_x - 0.5)
    dy = at[None, :, None] - torch.where(high, 4.8, 11.2) - 2 * (shift_y - 0.5)

    radius = torch.where(large, 3.8, 2.3)
    square = torch.maximum(dx.abs(), dy.abs()) * 2 / math.sqrt(math.pi)  # a square of half-side r √π / 2 has area π r²
    distance = torch.where(rounded, torch.hypot(dx, dy), square)
    inside = ((radius - distance) * side / 16 + 0.5).clamp(0, 1)
    bar = torch.sin(2 * math.pi * (dx / 3 + phase)) > 0
    paint = torch.where(striped & bar, 0.25, 1.0)

    edge = torch.minimum(at, 16 - at)
    frame = framed & (torch.minimum(edge[:, None], edge[None, :]) < 1)
    ground = 0.25 + 0.2 * level + 0.3 * frame
    colour = torch.where(warm[..., None], torch.tensor([0.95, 0.45, 0.1]), torch.tensor([0.1, 0.45, 0.95]))
    colour = colour + 0.7 * pale[..., None] * (0.5 - colour)
    x = ground[..., None] * (1 - inside[..., None]) + colour * (paint * inside)[..., None]
    x = x * (0.75 + 0.25 * light)[..., None] + grain * noise.normal(noise.stream(keys, 1), (side, side, 3))
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

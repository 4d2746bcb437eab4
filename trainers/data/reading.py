"""What loader processes do: read, decode and transform the examples of a task."""

from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from trainers import noise
from trainers.data import order
from trainers.data.examples import CorruptError, Examples, coloured
from trainers.data.photographic import Augmented, Transform

_SUBSTITUTES = 32


class Task(NamedTuple):
    """What a loader process does at once: the positions of a batch, or of one lane's share of it."""

    epoch: int
    positions: Tensor


class Part(NamedTuple):
    """``x``: ``(n, C, H, W) uint8``; ``corrupt``: (name, why) of each that could not be decoded."""

    x: Tensor
    y: Tensor
    keys: Tensor
    corrupt: list[tuple[str, str]]


class Training(Dataset):
    """Augmented examples; a corrupt one's place is taken by another, drawn by (id, seed, epoch)."""

    def __init__(self, examples: Examples, positions: Tensor, channels: int, seed: int, transform: Augmented) -> None:
        self.examples, self.positions, self.channels, self.seed = examples, positions, channels, seed
        self.transform = transform

    def __getitem__(self, task: Task) -> Part:
        corrupt: list[tuple[str, str]] = []
        read = [self._readable(i, task.epoch, corrupt) for i in task.positions.tolist()]
        chosen = torch.tensor([i for i, _ in read])
        keys = self.examples.ids[chosen]
        seeds = noise.stream(keys, self.seed, order.AUGMENT, task.epoch).tolist()
        x = [self.transform(coloured(image, self.channels), seed) for (_, image), seed in zip(read, seeds, strict=True)]
        return Part(torch.stack(x), self.examples.labels[chosen], keys, corrupt)

    def _readable(self, i: int, epoch: int, corrupt: list[tuple[str, str]]) -> tuple[int, Image.Image]:
        """The example at ``i``, or the substitute that (id, seed, epoch) draws for it."""
        key = self.examples.ids[i : i + 1]
        for attempt in range(_SUBSTITUTES):
            try:
                return i, self.examples.image(i)
            except CorruptError as error:
                corrupt.append((self.examples.name(i), str(error)))
            drawn = noise.integers(noise.stream(key, self.seed, order.SUBSTITUTE, epoch, attempt), len(self.positions))
            i = int(self.positions[drawn])
        raise ValueError(
            f"{_SUBSTITUTES} images in a row are corrupt, from {corrupt[0][0]} ({corrupt[0][1]}): repair the set"
        )


class Evaluation(Dataset):
    """Examples as they are judged; corrupt ones are left out."""

    def __init__(self, examples: Examples, channels: int, transform: Transform) -> None:
        self.examples, self.channels, self.transform = examples, channels, transform

    def __getitem__(self, task: Task) -> Part:
        corrupt, kept, x = [], [], []
        for i in task.positions.tolist():
            try:
                image = self.examples.image(i)
            except CorruptError as error:
                corrupt.append((self.examples.name(i), str(error)))
                continue
            kept.append(i)
            x.append(self.transform(coloured(image, self.channels)))
        rows = torch.tensor(kept, dtype=torch.int64)
        images = torch.stack(x) if x else torch.empty(0)
        return Part(images, self.examples.labels[rows], self.examples.ids[rows], corrupt)

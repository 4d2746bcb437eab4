"""The fast path for sets that fit in memory: decoded once, kept on the device, augmented there a batch at a time."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers import noise
from trainers.data import checks, order, roster
from trainers.data.augment import Augment
from trainers.data.examples import GREY, CorruptError, Examples, Source, coloured, fitted
from trainers.data.mixing import Mixing
from trainers.data.statistics import mean_and_std
from trainers.types import Batch

_CHUNK = 256


class Resident:
    """Batches of ``source``, held as uint8 on each device it is asked for.

    ``batch_size``: examples an optimizer step over all workers; the epoch's incomplete last step is dropped.
    ``validation``, ``test``: how many training examples to hold out (``test=0``: the set's own test split), drawn by
    ``split_seed``.  ``augment=None``: images as they are.  ``input_size``: (C, H, W), to which images are scaled and
    cropped; left out, they must all have one size.  ``mean``, ``std``: left out, those of the training examples.
    ``on_corrupt``: "error" stops at an image that cannot be decoded; "skip" leaves it out of the epoch, up to a
    share of ``max_corrupt`` of each split, with every other example, id and order as before; ``skipped`` counts
    them by name, on every rank all of them (``replicated`` is true).  ``memory_gb``: the most that the images may take.

    Errors: ``ValueError`` from the constructor for every setting or set that cannot work.
    """

    replicated = True

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int = 0,
        validation: int = 0,
        test: int = 0,
        split_seed: int = 0,
        augment: Augment | None = None,
        mixing: Mixing | None = None,
        input_size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        on_corrupt: str = "error",
        max_corrupt: float = 0.01,
        held_out_batch_size: int = 256,
        memory_gb: float = 8.0,
    ) -> None:
        checks.at_least("data.held_out_batch_size", held_out_batch_size, 1)
        self.batch_size, self.seed, self.held_out_batch_size = batch_size, seed, held_out_batch_size
        self.augment, self.mixing = augment or Augment(flip=0, shift=0), mixing or Mixing()
        self.skipped: Counter[str] = Counter()
        self._roster = roster.opened(source, validation, test, split_seed)
        self.classes, self.soft_targets = self._roster.classes, self.mixing.soft
        self.check(1)
        self.input_size = _input_size(self._roster.members["train"], input_size)
        self.augment.check(self.input_size)
        self._images: dict[int, Tensor] = {}
        for split in roster.SPLITS:
            self._decode(split, on_corrupt, max_corrupt, input_size is not None, memory_gb)
        self.check(1)
        examples, rows = self._roster.members["train"]
        checks.no_empty_class(examples.labels[rows], self.classes)
        found = mean_and_std(self._images[id(examples)], rows) if mean is None or std is None else (mean, std)
        self.mean, self.std = tuple(mean or found[0]), tuple(std or found[1])
        self._tables: dict[tuple[int, str], tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def digest(self) -> str:
        return self._roster.digest

    def size(self, split: str) -> int:
        return self._roster.size(split)

    def steps(self) -> int:
        return self.size("train") // self.batch_size

    def check(self, world: int) -> None:
        """Refuses a batch that ``world`` workers cannot share."""
        checks.batch(self.batch_size, self.size("train"), world, self.mixing.pairs)

    def train(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1, device: str | torch.device = "cpu"
    ) -> Iterator[Batch]:
        """This rank's rows of each step's batch, from step ``start``."""
        self.check(world)
        return self._train(epoch, start, rank, world, torch.device(device))

    def _train(self, epoch: int, start: int, rank: int, world: int, device: torch.device) -> Iterator[Batch]:
        examples, positions = self._roster.members["train"]
        images, labels, ids = self._table(examples, device)
        keyed = positions[order.shuffled(examples.ids[positions], self.seed, epoch)]
        share = keyed[: self.steps() * self.batch_size].reshape(self.steps(), world, -1)[:, rank].to(device)
        for step in range(start, self.steps()):
            rows = share[step]
            keys = ids[rows]
            x = self.augment(images, rows, noise.stream(keys, self.seed, order.AUGMENT, epoch), self.mean)
            x, y = self.mixing(x, labels[rows], len(self.classes), self.seed, epoch, step, rank)
            yield Batch(x, y, keys)

    def held_out(
        self, split: str, rank: int = 0, world: int = 1, device: str | torch.device = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        """Every example (or a keyed ``limit`` of them) exactly once over all ranks, not augmented."""
        examples, positions = self._roster.share(split, rank, world, limit)
        return self._held_out(examples, positions, torch.device(device))

    def _held_out(self, examples: Examples, positions: Tensor, device: torch.device) -> Iterator[Batch]:
        images, labels, ids = self._table(examples, device)
        for rows in positions.to(device).split(self.held_out_batch_size):
            yield Batch(images[rows].float().div_(255), labels[rows], ids[rows])

    def _table(self, examples: Examples, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and ids on ``device``, copied there once."""
        key = (id(examples), str(device))
        if key not in self._tables:
            parts = (self._images[id(examples)], examples.labels, examples.ids)
            self._tables[key] = tuple(part.to(device) for part in parts)  # type: ignore[assignment]
        return self._tables[key]

    def _decode(self, split: str, on_corrupt: str, max_corrupt: float, resize: bool, memory_gb: float) -> None:
        """Decodes the examples of ``split`` (unless a split that shares them has) and drops the corrupt ones."""
        examples, positions = self._roster.members[split]
        damage = checks.Damage(on_corrupt, max_corrupt, len(positions))
        if id(examples) not in self._images:
            _must_fit(len(examples), self.input_size, memory_gb)
            self._images[id(examples)] = torch.zeros(len(examples), *self.input_size, dtype=torch.uint8)
        lost = torch.zeros(len(examples), dtype=torch.bool)
        for i, error in _decode_into(self._images[id(examples)], examples, positions, resize):
            lost[i] = True
            damage.add(examples.name(i), str(error))
        self._roster = self._roster.without(split, lost)
        self.skipped.update(damage.skipped)


def _decode_into(images: Tensor, examples: Examples, positions: Tensor, resize: bool) -> list[tuple[int, CorruptError]]:
    """Decodes ``positions`` into ``images``, in threads (Pillow decodes outside the interpreter lock); gives the
    corrupt ones, in order."""
    channels, height, width = images.shape[1:]
    target = images.permute(0, 2, 3, 1).numpy()

    def some(rows: list[int]) -> list[tuple[int, CorruptError]]:
        bad = []
        for i in rows:
            try:
                image = coloured(examples.image(i), channels)
            except CorruptError as error:
                bad.append((i, error))
                continue
            if resize:
                image = fitted(image, height, width)
            elif image.size != (width, height):
                raise ValueError(
                    f"image {examples.name(i)} is {image.height}x{image.width}, others are {height}x{width}: "
                    f"set data.input_size=[{channels},{height},{width}] to scale and crop them all"
                )
            target[i] = np.asarray(image).reshape(height, width, channels)
        return bad

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        return [bad for part in pool.map(some, (rows.tolist() for rows in positions.split(_CHUNK))) for bad in part]


def _input_size(member: tuple[Examples, Tensor], given: Sequence[int] | None) -> tuple[int, int, int]:
    """As given, else that of the first training image that can be decoded."""
    if given is not None:
        return checks.image_size(given)
    examples, positions = member
    for i in positions[:1000].tolist():
        try:
            image: Image.Image = examples.image(i)
        except CorruptError:
            continue
        return (1 if image.mode in GREY else 3), image.height, image.width
    raise ValueError(
        f"none of the first images can be decoded ({examples.name(0)} ...): data.source reads the wrong column or files"
    )


def _must_fit(count: int, input_size: Sequence[int], memory_gb: float) -> None:
    needed = count * int(np.prod(input_size)) / 1e9
    if needed > memory_gb:
        raise ValueError(
            f"{count} images of {tuple(input_size)} take {needed:.1f} GB, above data.memory_gb={memory_gb:g}: "
            "raise it, lower data.input_size, or choose data that stream (data=folder, data=webdataset, data=imagenet)"
        )

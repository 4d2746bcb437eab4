"""Sets that do not fit: decoded and augmented one example at a time in loader processes, a few batches ahead."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trainers.data import checks, order, roster
from trainers.data.examples import Source
from trainers.data.mixing import Mixing
from trainers.data.photographic import Photographic
from trainers.data.reading import Evaluation, Part, Task, Training
from trainers.types import Batch


class Streaming:
    """Batches of ``source`` at ``input_size`` (C, H, W), with timm's augmentation.

    ``batch_size``, ``validation``, ``test``, ``split_seed``, ``held_out_batch_size``: as for ``Resident``.
    ``mean``, ``std``: what the model normalises by; left out, ImageNet's.

    ``lanes=None`` visits the examples in a uniformly random order, which suits files on a disk.  With ``lanes=G``
    (for tar and parquet shards, whose content should be shuffled already) the epoch is ``G`` stretches of shards in
    keyed order, each read nearly in sequence and shuffled within ``buffer`` examples; every step takes
    ``batch_size / G`` from each.  A rank reads ``G / world`` lanes and touches no other, so batches are the same for
    any number of workers that divides ``G``.  Set G to a multiple of workers × ``loaders``: each process then reads
    ``G / (workers · loaders)`` lanes of its own, from a window of ``buffer`` examples in each, and these windows must
    fit into the source's ``cache_mb``, or row groups are read over and over.  1024 images of 110 KB take 113 MB, so
    the defaults suit two lanes a process; for more of them, lower ``buffer`` or raise ``cache_mb``, which every one
    of the processes may take.

    ``loaders``: processes that decode; 0 decodes in this one.  They live from epoch to epoch.

    CorruptError images are met while training: with ``on_corrupt="skip"`` another training example, keyed by
    (id, seed, epoch), takes the place of each, so that steps and order are as before; held-out ones are left out.
    ``skipped`` counts every meeting by name, of this rank's share alone (``replicated`` is false), and
    ``max_corrupt`` is held against that count.

    Errors: ``ValueError`` from the constructor; from ``train`` for a corrupt image where that is fatal.
    """

    replicated = False

    def __init__(
        self,
        source: Source,
        batch_size: int,
        input_size: Sequence[int],
        seed: int = 0,
        validation: int = 0,
        test: int = 0,
        split_seed: int = 0,
        transform: Photographic | None = None,
        mixing: Mixing | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        lanes: int | None = None,
        buffer: int = 1024,
        on_corrupt: str = "error",
        max_corrupt: float = 0.01,
        held_out_batch_size: int = 256,
        loaders: int = 4,
        prefetch: int = 4,
        start_method: str | None = None,
    ) -> None:
        for name, value, least in (
            ("held_out_batch_size", held_out_batch_size, 1), ("loaders", loaders, 0), ("prefetch", prefetch, 1),
            ("lanes", 1 if lanes is None else lanes, 1), ("buffer", buffer, 1),
        ):  # fmt: skip
            checks.at_least(f"data.{name}", value, least)
        self.input_size = checks.image_size(input_size)
        self.batch_size, self.seed, self.held_out_batch_size = batch_size, seed, held_out_batch_size
        self.lanes, self.buffer, self.loaders, self.prefetch = lanes, buffer, loaders, prefetch
        self.mixing, self._start_method = mixing or Mixing(), start_method
        self.mean, self.std = _normalisation(self.input_size[0], mean, std)
        self._roster = roster.opened(source, validation, test, split_seed, whole_shards=lanes is not None)
        self.classes, self.soft_targets = self._roster.classes, self.mixing.soft
        examples, positions = self._roster.members["train"]
        if lanes is not None and examples.starts is None:
            raise ValueError(
                f"data.lanes={lanes} is for tar and parquet shards; leave it out for {type(source).__name__}"
            )
        self.check(1)
        total = sum(map(self.size, roster.SPLITS))
        self._damage = checks.Damage(on_corrupt, max_corrupt, total)
        self._transform = transform or Photographic()
        self._evaluation = self._transform.evaluation(self.input_size)
        self._reader = Training(
            examples, positions, self.input_size[0], seed,
            self._transform.training(self.input_size, self.mean, self.std),
        )  # fmt: skip
        self._idle: dict[bool, list[DataLoader]] = {False: [], True: []}

    @property
    def digest(self) -> str:
        return self._roster.digest

    @property
    def skipped(self) -> Counter[str]:
        return Counter(self._damage.skipped)

    def size(self, split: str) -> int:
        return self._roster.size(split)

    def steps(self) -> int:
        return self.size("train") // self.batch_size

    def check(self, world: int) -> None:
        """Refuses a batch, or lanes, that ``world`` workers cannot share."""
        checks.batch(self.batch_size, self.size("train"), world, self.mixing.pairs)
        if self.lanes is not None and (self.lanes % world or self.batch_size % self.lanes):
            raise ValueError(
                f"data.lanes={self.lanes} must be a multiple of workers={world} and divide batch_size={self.batch_size}"
            )

    def train(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1, device: str | torch.device = "cpu"
    ) -> Iterator[Batch]:
        """This rank's rows of each step's batch, from step ``start``."""
        self.check(world)
        return self._train(epoch, start, rank, world, torch.device(device))

    def _train(self, epoch: int, start: int, rank: int, world: int, device: torch.device) -> Iterator[Batch]:
        share = self._order(epoch).reshape(self.steps(), world, -1)[start:, rank]
        pieces = 1 if self.lanes is None else self.lanes // world
        tasks = [Task(epoch, rows) for rows in share.reshape(len(share) * pieces, -1)]
        loader = self._loader(device)
        loader.sampler.tasks = tasks  # type: ignore[attr-defined]
        try:
            read = iter(loader)
            for step in range(start, self.steps()):
                x, y, keys = self._gathered(list(islice(read, pieces)), device)
                x, y = self.mixing(x, y, len(self.classes), self.seed, epoch, step, rank)
                yield Batch(x, y, keys)
        finally:
            self._idle[device.type == "cuda"].append(loader)

    def held_out(
        self, split: str, rank: int = 0, world: int = 1, device: str | torch.device = "cpu", limit: int | None = None
    ) -> Iterator[Batch]:
        """Every example (or a keyed ``limit`` of them) exactly once over all ranks, resized and cropped."""
        examples, positions = self._roster.share(split, rank, world, limit)
        return self._held_out(
            Evaluation(examples, self.input_size[0], self._evaluation), positions, torch.device(device)
        )

    def _held_out(self, reader: Evaluation, positions: Tensor, device: torch.device) -> Iterator[Batch]:
        tasks = [Task(0, rows) for rows in positions.split(self.held_out_batch_size)]
        for part in self._new_loader(reader, tasks, device.type == "cuda", lasting=False):
            batch = self._gathered([part], device)
            if len(batch.x):
                yield batch

    def close(self) -> None:
        """Ends the loader processes; the next epoch starts new ones."""
        self._idle = {False: [], True: []}

    def _order(self, epoch: int) -> Tensor:
        """``(steps, batch_size)`` positions."""
        examples, positions = self._roster.members["train"]
        shape = (self.steps(), self.batch_size)
        if self.lanes is None or examples.starts is None:
            keyed = order.shuffled(examples.ids[positions], self.seed, epoch)
            return positions[keyed[: shape[0] * shape[1]]].reshape(shape)
        laned = order.nearby(positions, examples.ids, examples.starts, self.buffer, self.lanes, self.seed, epoch)
        each = self.batch_size // self.lanes
        return laned[: shape[0] * each].reshape(shape[0], each, self.lanes).transpose(1, 2).reshape(shape)

    def _gathered(self, parts: list[Part], device: torch.device) -> Batch:
        for part in parts:
            for name, why in part.corrupt:
                self._damage.add(name, why)
        x, y, keys = (
            torch.cat(same) if len(same) > 1 else same[0] for same in zip(*(p[:3] for p in parts), strict=True)
        )
        x, y, keys = (t.to(device, non_blocking=True) for t in (x, y, keys))
        return Batch(x.float().div_(255), y, keys)

    def _loader(self, device: torch.device) -> DataLoader:
        """One that no running epoch uses."""
        idle = self._idle[device.type == "cuda"]
        return idle.pop() if idle else self._new_loader(self._reader, [], device.type == "cuda", lasting=True)

    def _new_loader(self, reader: Dataset, tasks: list[Task], pin: bool, lasting: bool) -> DataLoader:
        parallel = self.loaders > 0
        return DataLoader(
            reader,
            batch_size=None,
            sampler=_Tasks(tasks),
            num_workers=self.loaders,
            prefetch_factor=self.prefetch if parallel else None,
            persistent_workers=parallel and lasting,
            multiprocessing_context=self._start_method if parallel else None,
            pin_memory=pin,
            generator=torch.Generator(),  # or it would draw its seed from the global one
        )


class _Tasks(Sampler):
    """A list that can be exchanged between epochs: loaders that live on ask for it again."""

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


def _normalisation(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As given, else ImageNet's; their average for grey images."""

    def usual(values: tuple[float, ...]) -> tuple[float, ...]:
        return values if channels == 3 else (sum(values) / 3,)

    return tuple(mean or usual(IMAGENET_DEFAULT_MEAN)), tuple(std or usual(IMAGENET_DEFAULT_STD))

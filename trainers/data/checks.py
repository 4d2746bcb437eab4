"""What is wrong with a data set or its settings, said before training starts."""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.data.examples import Examples

_SHOWN = 5


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def labels_in_range(examples: Examples, split: str, classes: Sequence[str]) -> None:
    """Every label must name a class."""
    wrong = ((examples.labels < 0) | (examples.labels >= len(classes))).nonzero()[:, 0]
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(
            f"label {int(examples.labels[first])} of {examples.name(first)} is outside 0 ... {len(classes) - 1} "
            f"({len(wrong)} of {len(examples)} in split {split!r}): set data.source.class_names to the right number or "
            "names, or choose the label column or split that has labels"
        )


def no_empty_class(labels: Tensor, classes: Sequence[str]) -> None:
    """Every class must have an example to train on."""
    counts = torch.bincount(labels, minlength=len(classes))
    empty = [f"{name!r}" for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
    if empty:
        raise ValueError(
            f"no training example of class {_some(empty)} ({len(empty)} of {len(classes)} classes): "
            "add examples, remove the class (data.source.class_names), or hold out fewer (data.validation, data.test)"
        )


def batch(batch_size: int, available: int, world: int, even: bool) -> None:
    """``batch_size`` must be fed by ``available`` examples, divide over ``world`` workers, and pair up if ``even``."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if batch_size > available:
        raise ValueError(
            f"batch_size={batch_size} is above the {available} training examples there are: "
            f"set batch_size to {available} or less"
        )
    if batch_size % world:
        near = max(batch_size // world, 1) * world
        raise ValueError(
            f"batch_size={batch_size} is the batch of all workers together and does not divide by "
            f"workers={world}: set batch_size={near}"
        )
    if even and (batch_size // world) % 2:
        share = f"leaves {batch_size // world} examples to each of workers={world}" if world > 1 else "is odd"
        raise ValueError(
            f"batch_size={batch_size} {share}, and mixup and cutmix mix pairs: set batch_size={batch_size + world}, or "
            "data.mixing.mixup_alpha=0 and data.mixing.cutmix_alpha=0"
        )


def image_size(given: Sequence[int]) -> tuple[int, int, int]:
    """``data.input_size`` as (C, H, W)."""
    if len(given) != 3 or given[0] not in (1, 3) or min(given) < 1:
        raise ValueError(f"data.input_size={list(given)} must be [channels, height, width] with 1 or 3 channels")
    return given[0], given[1], given[2]


def at_least(setting: str, value: float, least: float) -> None:
    if value < least:
        raise ValueError(f"{setting}={value} must be at least {least}")


def one_of(setting: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1, cutoff=0.0)
        raise ValueError(f"{setting}={value!r} must be one of {', '.join(choices)}; nearest: {near[0]}")


def column(wanted: str, there: Sequence[str], shard: str, setting: str) -> None:
    if wanted not in there:
        near = difflib.get_close_matches(wanted, there, n=3, cutoff=0.3) or list(there)
        raise ValueError(
            f"{setting}={wanted!r} is no column of {shard}: nearest {_some(near)}; there are {', '.join(there)}"
        )


class Damage:
    """Counts corrupt examples by name, as ``on_corrupt`` says: "error" stops at the first, "skip" goes on while at
    most ``max_corrupt`` of the ``total`` examples are corrupt."""

    def __init__(self, on_corrupt: str, max_corrupt: float, total: int) -> None:
        one_of("data.on_corrupt", on_corrupt, ("error", "skip"))
        if not 0 <= max_corrupt <= 1:
            raise ValueError(f"data.max_corrupt={max_corrupt} must be a share in [0, 1]")
        self.on_corrupt, self.max_corrupt, self.total = on_corrupt, max_corrupt, total
        self.skipped: dict[str, int] = {}

    def add(self, name: str, why: str) -> None:
        self.skipped[name] = self.skipped.get(name, 0) + 1
        if self.on_corrupt == "error":
            raise ValueError(f"corrupt image {name} ({why}): repair or remove it, or set data.on_corrupt=skip")
        if len(self.skipped) > self.max_corrupt * self.total:
            raise ValueError(
                f"{len(self.skipped)} corrupt images ({_some(list(self.skipped))}) are more than "
                f"data.max_corrupt={self.max_corrupt:g} of {self.total}: the set or its transfer is damaged; repair "
                "it, or raise data.max_corrupt if you know why"
            )

"""Who is in which split: opened once, checked, the same for every batcher."""

import hashlib
from dataclasses import dataclass, replace

from torch import Tensor

from trainers.data import checks, order
from trainers.data.examples import Examples, Source

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Roster:
    """``members``: for each split its examples and the positions in them that belong to it, sorted."""

    classes: tuple[str, ...]
    members: dict[str, tuple[Examples, Tensor]]
    split_seed: int

    @property
    def digest(self) -> str:
        """sha256 over class names and both splits' digests."""
        parts = [*self.classes, *sorted({examples.digest for examples, _ in self.members.values()})]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def size(self, split: str) -> int:
        checks.one_of("split", split, SPLITS)
        return len(self.members[split][1])

    def without(self, split: str, lost: Tensor) -> "Roster":
        """Less the positions where ``lost`` is true (examples that cannot be read)."""
        examples, positions = self.members[split]
        return replace(self, members=self.members | {split: (examples, positions[~lost[positions]])})

    def share(self, split: str, rank: int, world: int, limit: int | None) -> tuple[Examples, Tensor]:
        """Every ``world``-th example of the split (or of ``limit`` of them), from ``rank``: each once over all."""
        if self.size(split) == 0:
            raise ValueError(
                f"data.{split}=0: nothing is held out as {split}; set data.{split} to a number of examples"
            )
        examples, positions = self.members[split]
        return examples, order.limited(positions, examples.ids, limit, self.split_seed)[rank::world]


def opened(source: Source, validation: int, test: int, split_seed: int, whole_shards: bool = False) -> Roster:
    """``validation`` and ``test`` examples come out of training by a keyed draw (``test=0``: the set's own test
    split); training never sees them.  The draw depends on ``split_seed`` alone, so that all runs judge on the same."""
    checks.at_least("data.validation", validation, 0)
    checks.at_least("data.test", test, 0)
    train = source.split("train")
    checks.labels_in_range(train, "train", source.classes)
    if validation + test >= len(train):
        raise ValueError(
            f"data.validation={validation} and data.test={test} hold out all of the {len(train)} training examples: "
            "hold out fewer"
        )
    starts = train.starts if whole_shards else None
    tested, validated, trained = order.held_out(train.ids, starts, split_seed, test, validation)
    members = {"train": (train, trained), "validation": (train, validated), "test": (train, tested)}
    if test == 0:
        own = source.split("test")
        checks.labels_in_range(own, "test", source.classes)
        members["test"] = (own, order.held_out(own.ids, None, split_seed)[0])
    checks.no_empty_class(train.labels[trained], source.classes)
    return Roster(tuple(source.classes), members, split_seed)

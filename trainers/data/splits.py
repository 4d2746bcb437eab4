"""Finding a split's files by the names people give to splits."""

import re
from collections.abc import Sequence

from trainers.data.files import below

TEST_NAMES = ("test", "validation", "val", "valid")
"""What the set's own test split may be called, first found first taken."""


def belongs(path: str, root: str, split: str) -> bool:
    """``train-00000-of-00004.parquet``, ``train.tar``, ``train/0001.tar``: the split begins the file's name, or is
    a folder on its way."""
    *folders, name = below(path, root).split("/")
    return split in folders or re.match(rf"{re.escape(split)}($|[-._\d])", name) is not None


def chosen(paths: Sequence[str], root: str, names: Sequence[str], setting: str) -> tuple[str, list[str]]:
    """The first of ``names`` that has files, and its files; names the remedy when none has."""
    for name in names:
        if found := [path for path in paths if belongs(path, root, name)]:
            return name, found
    shown = f"{len(paths)} others: {', '.join(below(path, root) for path in paths[:3])} ..." if paths else "none at all"
    raise ValueError(
        f"{setting}={root} has no files of split {' or '.join(names)} (there are {shown}): "
        f"name them {names[0]}-... or put them in a folder {names[0]}/"
        + ("" if names[0] == "train" else ", or set data.test=N to hold N training examples out for testing")
    )


def names_of(split: str, train: str, test: str | None) -> tuple[str, ...]:
    """The names to look for: ``test=None`` tries the usual ones."""
    if split == "train":
        return (train,)
    if split != "test":
        raise ValueError(f"split {split!r} must be train or test")
    return TEST_NAMES if test is None else (test,)


def class_names(given: Sequence[str] | int | None) -> tuple[str, ...] | None:
    """Names as configured: a list, or a number of classes, which are then called by their numbers."""
    if given is None:
        return None
    return tuple(str(k) for k in range(given)) if isinstance(given, int) else tuple(str(name) for name in given)

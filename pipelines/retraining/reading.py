"""Opening images, to see whether they can be."""

from typing import Any

from pipelines.retraining.findings import Reading
from pipelines.retraining.manifest import SPLITS
from trainers.data.examples import CorruptError


def read(source: Any, most: int | None) -> Reading:
    """Opens ``most`` images, evenly over every split.  ``source``: a ``trainers.data.examples.Source``."""
    found, opened = [], 0
    splits = [examples for split in SPLITS if (examples := _split(source, split))]
    every = sum(map(len, splits))
    for examples in splits:
        share = len(examples) if most is None or most >= every else max(1, round(most * len(examples) / every))
        for i in (k * len(examples) // share for k in range(share)):
            opened += 1
            try:
                examples.image(i)
            except (CorruptError, OSError) as error:
                found.append(f"{examples.name(i)} ({error})")
    return Reading(opened, tuple(found))


def _split(source: Any, name: str) -> Any:
    try:
        return source.split(name)
    except ValueError:  # a set may have no test split of its own
        return ()

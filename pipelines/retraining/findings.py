"""What is wrong with new data, found before a training is paid for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Misuse
from pipelines.retraining.manifest import Manifest

SHOWN = 5


@dataclass(frozen=True)
class Checks:
    """``smallest``: the share of a split's or a class's images of before that must still be there.  ``unreadable``: the
    share of images that may be; ``read``: how many are opened to see, None for all.  ``new_classes``: whether classes
    may be added."""

    smallest: float
    unreadable: float
    read: int | None
    new_classes: bool


def checks(node: Mapping[str, Any]) -> Checks:
    """Errors: ``Misuse`` for a number out of range."""
    for name in ("smallest", "unreadable"):
        if not 0 <= node[name] <= 1:
            raise Misuse(f"checks.{name}={node[name]:g} must be in [0, 1]: a share of the images, such as 0.1")
    if node["read"] is not None and node["read"] < 1:
        raise Misuse(
            f"checks.read={node['read']} must be at least 1: images opened to see whether they can be; null: all"
        )
    return Checks(node["smallest"], node["unreadable"], node["read"], node["new_classes"])


@dataclass(frozen=True)
class Reading:
    """Of ``opened`` images, the names of those that could not be decoded, each with why."""

    opened: int
    unreadable: tuple[str, ...]


def findings(now: Manifest, before: Manifest | None, reading: Reading, asked: Checks) -> list[str]:
    """A sentence for each reason not to train on ``now``; ``before``: what the champion was trained on, if known.

    Pure: nothing is read.
    """
    found = [f"labels: {now.unread}"] if now.unread else []
    if not now.unread and not now.total("train"):
        found.append("no training images")
    if before:
        for split in now.images:
            found += _shrunk(split, now, before, asked.smallest)
        added = sorted(set(now.images.get("train", {})) - set(before.images.get("train", {})))
        if before.images.get("train") and added and not asked.new_classes:
            found.append(
                f"new classes: {_some(added)}, so that the champion cannot be compared; checks.new_classes=true takes "
                "them"
            )
    if reading.unreadable and len(reading.unreadable) / reading.opened > asked.unreadable:
        found.append(
            f"{len(reading.unreadable)} of {reading.opened} images opened cannot be read, above "
            f"checks.unreadable={asked.unreadable:g}: {_some(reading.unreadable)}"
        )
    return found


def _shrunk(split: str, now: Manifest, before: Manifest, smallest: float) -> list[str]:
    """What is gone, or left with less than ``smallest`` of what there was."""
    old, new, found = before.images.get(split, {}), now.images.get(split, {}), []
    if gone := sorted(name for name, count in old.items() if count and not new.get(name)):
        found.append(f"{split}: no images any more of class {_some(gone)}")
    if before.total(split) and now.total(split) / before.total(split) < smallest:
        found.append(f"{split}: {now.total(split):,} images, where there were {before.total(split):,}")
    less = [
        f"{name} ({old[name]:,} to {new[name]:,})"
        for name in sorted(old)
        if new.get(name) and old[name] and new[name] / old[name] < smallest
    ]
    return found + ([f"{split}: far fewer images of class {_some(less)}"] if less else [])


def _some(names: Any) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

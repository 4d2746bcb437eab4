"""What a data set is made of: its files, their sizes and digests, and how many images each class has."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines import compose, storage
from pipelines.errors import Misuse, first_line
from pipelines.storage import Entry
from trainers.data.files import below

READERS = 4
"""Files that are read at once."""
SPLITS = ("train", "test")


@dataclass(frozen=True)
class File:
    """``digest``: sha256 of a local file; of an object of S3 its ETag, ``etag:...``, which is another one for other
    content (and, uploaded in other parts, for the same).  ``stamp``: as of ``storage.Entry``."""

    size: int
    digest: str
    stamp: str


@dataclass(frozen=True)
class Manifest:
    """``source``: what reads the set.  ``files``: by path below the set's.  ``images``: by split and class.
    ``unread``: why classes and labels could not be had; empty if they could.  ``settings``: digest of those they were
    counted by, such as the name of the label's column."""

    source: str
    files: Mapping[str, File]
    images: Mapping[str, Mapping[str, int]]
    unread: str = ""
    settings: str = ""

    @property
    def digest(self) -> str:
        """64 hex digits over names and contents: a set that was only moved, or touched, is the same."""
        total = hashlib.sha256(self.source.encode())
        for path, file in sorted(self.files.items()):
            total.update(f"\0{path}\0{file.digest}".encode())
        if not self.files:
            total.update(json.dumps(self.images, sort_keys=True).encode())
        return total.hexdigest()

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files.values())

    def total(self, split: str) -> int:
        return sum(self.images.get(split, {}).values())


def take(config: Mapping[str, Any], known: Manifest | None = None) -> Manifest:
    """The manifest of ``config["data"]``.  Only files that ``known`` does not have as they are now are read.

    Errors: ``Misuse`` for a place that cannot be listed, ``Failure`` for storage that refuses.
    """
    path = config["data"].get("path")
    source = str(config["data"]["source"]["_target_"])
    there = {below(each, str(path)): entry for each, entry in _inventory(path).items()} if path else {}
    settings = compose.digest(compose.recipe(config)["data"])
    alike = known and (known.source, known.settings, known.unread) == (source, settings, "")
    if known and alike and _same(there, known):
        return known
    old = known.files if known else {}
    with ThreadPoolExecutor(READERS) as pool:
        files = dict(
            zip(there, pool.map(lambda name: _file(path, name, there[name], old.get(name)), there), strict=True)
        )
    images, unread = _images(config)
    return Manifest(source, files, images, unread, settings)


def _inventory(path: str) -> dict[str, Entry]:
    try:
        return storage.inventory(path)
    except FileNotFoundError as error:
        raise Misuse(f"data.path={path}: {first_line(error)}; run again on data that stands still") from error


def _same(there: Mapping[str, Entry], known: Manifest) -> bool:
    return {name: (f.size, f.stamp) for name, f in known.files.items()} == {name: tuple(e) for name, e in there.items()}


def _file(root: str, name: str, entry: Entry, old: File | None) -> File:
    if old and (old.size, old.stamp) == entry:
        return old
    if "://" in root:
        return File(entry.size, f"etag:{entry.stamp}", entry.stamp)
    try:
        with Path(root, name).open("rb") as file:
            return File(entry.size, hashlib.file_digest(file, "sha256").hexdigest(), entry.stamp)
    except OSError as error:  # counted with the other unreadable ones
        return File(entry.size, f"unreadable:{error.strerror}", entry.stamp)


def _images(config: Mapping[str, Any]) -> tuple[dict[str, dict[str, int]], str]:
    """``(images by split and class, why not)``: a set without labels is a finding, no crash."""
    from pipelines import parts

    found: dict[str, dict[str, int]] = {}
    try:
        source = parts.source(config)
        for split in SPLITS:
            if split == "test" and config["data"].get("test"):
                continue  # it is drawn from training
            labels = source.split(split).labels
            if strange := int(((labels < 0) | (labels >= len(source.classes))).sum()):
                return found, f"{strange} of {len(labels)} images of split {split!r} have no label that names a class"
            counts = labels.bincount(minlength=len(source.classes)).tolist()
            found[split] = dict(zip(map(str, source.classes), counts, strict=True))
    except (ValueError, TypeError, OSError) as error:
        return found, first_line(error)
    return found, ""


def to_json(manifest: Manifest) -> bytes:
    return (json.dumps({"digest": manifest.digest, **asdict(manifest)}, indent=1) + "\n").encode()


def from_json(text: bytes) -> Manifest:
    """Errors: ``ValueError`` for what is none, or was changed."""
    try:
        plain = json.loads(text)
        files = {name: File(**each) for name, each in plain["files"].items()}
        source, images, unread, settings, said = (
            plain[key] for key in ("source", "images", "unread", "settings", "digest")
        )
        found = Manifest(source, files, images, unread, settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no manifest ({first_line(error)})") from error
    if found.digest != said:
        raise ValueError("it does not have the digest that it says")
    return found

"""WebDataset shards: tar files in which ``<key>.jpg`` and ``<key>.cls`` lie side by side.

The layout is https://github.com/webdataset/webdataset's; a tar's members lie at fixed offsets, so once they are
indexed a shard is read by byte ranges, from any place, and its own library is not needed.
"""

import json
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from trainers.data import splits
from trainers.data.examples import decode, digest, row_ids
from trainers.data.files import Files, LocalFiles, Ranges, below, listed

SUFFIXES = ("jpg", "jpeg", "png", "webp", "ppm", "pgm", "bmp")
INDEX = "holdfast-index.json"


class Entry(NamedTuple):
    """One example of a shard: where its image's bytes are, and its class."""

    key: str
    label: int
    offset: int
    size: int


def scan(files: Files, path: str, label: str = "cls") -> list[Entry]:
    """The examples of one tar, in order: those with an image, whose class is the text of ``<key>.<label>``."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with files.open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if suffix.lower() in SUFFIXES:
                    images[key] = (member.offset_data, member.size)
                elif suffix == label and (content := tar.extractfile(member)):
                    labels[key] = int(content.read())
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(
            f"shard {path} is damaged or has an unreadable .{label}: {error}; fetch or pack it again"
        ) from error
    if without := sorted(set(images) - set(labels)):
        raise ValueError(
            f"shard {path}: {len(without)} images have no .{label} (first: {without[0]}): set data.source.label to "
            "the suffix that holds the class number"
        )
    return [Entry(key, labels[key], *place) for key, place in images.items()]


@dataclass(frozen=True)
class Shards:
    """``<split>-*.tar`` or ``<split>/*.tar`` below ``path``, local or wherever ``files`` reads from.

    At open each shard's headers are read once (a few MB/s over a network), unless ``path`` holds the index that
    ``python -m trainers.data.shards PATH`` writes.  At most ``cache_mb`` megabytes are kept in each process.
    ``class_names``: names or their number; left out, the largest label counts.  An example's id comes from its
    shard's name and its place in it.

    Errors: ``ValueError`` for a missing path or split, a damaged shard, an image without a label.
    """

    path: str
    label: str = "cls"
    class_names: Sequence[str] | int | None = None
    train: str = "train"
    test: str | None = None
    cache_mb: int = 256
    files: Files = field(default_factory=LocalFiles)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        given = splits.class_names(self.class_names)
        return given or tuple(str(k) for k in range(int(self._train.labels.max()) + 1))

    @cached_property
    def _train(self) -> "ShardExamples":
        return self._opened("train")

    def split(self, name: str) -> "ShardExamples":
        return self._train if name == "train" else self._opened(name)

    def _opened(self, name: str) -> "ShardExamples":
        tars = [path for path in listed(self.files, self.path) if path.endswith(".tar")]
        _, shards = splits.chosen(tars, self.path, splits.names_of(name, self.train, self.test), "data.path")
        return ShardExamples(self, shards, self.index(shards))

    def index(self, shards: Sequence[str]) -> list[list[Entry]]:
        """The entries of each shard, from the index file where it knows the shard at its present size."""
        known = self._known
        with ThreadPoolExecutor(8) as pool:
            return list(
                pool.map(lambda shard: known.get(self._mark(shard)) or scan(self.files, shard, self.label), shards)
            )

    def _mark(self, shard: str) -> str:
        return f"{below(shard, self.path)}:{self.files.size(shard)}:{self.label}"

    @cached_property
    def _known(self) -> dict[str, list[Entry]]:
        path = f"{self.path.rstrip('/')}/{INDEX}"
        if not self.files.exists(path):
            return {}
        with self.files.open(path) as file:
            return {mark: [Entry(*entry) for entry in entries] for mark, entries in json.load(file).items()}

    def write_index(self) -> Path:
        """Writes the index of every shard beside the shards (a local ``path``); upload it with them."""
        tars = [path for path in listed(self.files, self.path) if path.endswith(".tar")]
        target = Path(self.path) / INDEX
        target.write_text(json.dumps(dict(zip(map(self._mark, tars), self.index(tars), strict=True))))
        return target


class ShardExamples:
    """One split, as (shard, byte range) an example; read through a bounded cache of recent blocks."""

    def __init__(self, source: Shards, shards: list[str], entries: list[list[Entry]]) -> None:
        self._source, self._shards = source, shards
        self.starts: Sequence[int] = [0, *accumulate(len(part) for part in entries[:-1])]
        flat = [entry for part in entries for entry in part]
        self.labels = torch.tensor([entry.label for entry in flat], dtype=torch.int64)
        self.ids = torch.cat(
            [row_ids(below(s, source.path), len(part)) for s, part in zip(shards, entries, strict=True)]
        )
        self._keys = [entry.key for entry in flat]
        self._places = torch.tensor([(entry.offset, entry.size) for entry in flat], dtype=torch.int64)
        self._shard = torch.repeat_interleave(torch.tensor([len(part) for part in entries]))
        self._ranges = Ranges(source.files, source.cache_mb)

    @cached_property
    def digest(self) -> str:
        return digest(self._source.files, self._source.path, self._shards, self.labels, self._source.label)

    def __len__(self) -> int:
        return len(self._keys)

    def image(self, i: int) -> Image.Image:
        offset, size = self._places[i].tolist()
        return decode(self._ranges.read(self._shards[self._shard[i]], offset, size))

    def name(self, i: int) -> str:
        return f"{below(self._shards[self._shard[i]], self._source.path)} {self._keys[i]}"


if __name__ == "__main__":
    print(Shards(sys.argv[1]).write_index())

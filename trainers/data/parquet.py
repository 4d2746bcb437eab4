"""Hugging Face's image data sets: parquet shards with encoded images and integer labels."""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

import torch
from PIL import Image
from torch import Tensor

from trainers.data import checks, splits
from trainers.data.examples import decode, digest, row_ids
from trainers.data.files import MEGABYTE, Files, LocalFiles, below, listed

IMAGES, LABELS = ("image", "img"), ("label", "fine_label")


@dataclass(frozen=True)
class Parquet:
    """Shards ``<split>-*.parquet`` below ``path``, with columns ``image: {bytes, path}`` (or plain bytes) and an
    integer label.  ``image``, ``label``: their names; left out, the first there is of image, img and of label,
    fine_label (CIFAR-100's 100 classes).

    ``class_names``: names or their number; left out, they come from the schema's Hugging Face metadata, else from the
    largest label.  ``test``: the split to test on; left out, the first there is of test, validation, val, valid.
    Images are read a row group at a time, with at most ``cache_mb`` megabytes of them kept in each process.
    An example's id comes from its shard's name and its row.

    Errors: ``ValueError`` for a missing path, split or column, and for labels that are not integers.
    """

    path: str
    image: str | None = None
    label: str | None = None
    class_names: Sequence[str] | int | None = None
    train: str = "train"
    test: str | None = None
    cache_mb: int = 256
    files: Files = field(default_factory=LocalFiles)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        given = splits.class_names(self.class_names)
        return given or self._train.names

    @cached_property
    def _train(self) -> "ParquetExamples":
        return self._opened("train")

    def split(self, name: str) -> "ParquetExamples":
        return self._train if name == "train" else self._opened(name)

    def _opened(self, name: str) -> "ParquetExamples":
        paths = [path for path in listed(self.files, self.path) if path.endswith(".parquet")]
        _, shards = splits.chosen(paths, self.path, splits.names_of(name, self.train, self.test), "data.path")
        return ParquetExamples(self, shards)


class ParquetExamples:
    """One split; opens shards in each process for itself."""

    def __init__(self, source: Parquet, shards: list[str]) -> None:
        self._source, self._shards = source, shards
        self._forget()
        groups: list[int] = []
        labels, ids = [], []
        self._groups: list[tuple[int, int]] = []
        for number, shard in enumerate(shards):
            file = self._file(number)
            self._image, label = self._columns(file, shard)
            labels.append(_integers(file.read(columns=[label])[label], shard, label))
            ids.append(row_ids(below(shard, source.path), file.metadata.num_rows))
            for group in range(file.metadata.num_row_groups):
                self._groups.append((number, group))
                groups.append(file.metadata.row_group(group).num_rows)
        self.labels, self.ids, self._label = torch.cat(labels), torch.cat(ids), label
        if not len(self):
            raise ValueError(f"data.path={source.path}: {', '.join(shards[:3])} hold no rows")
        self._ends = torch.tensor(groups).cumsum(0)
        self.starts: Sequence[int] = [0, *self._ends[:-1].tolist()]
        self.names = _feature_names(self._file(0), label) or tuple(str(k) for k in range(int(self.labels.max()) + 1))

    @cached_property
    def digest(self) -> str:
        source = self._source
        return digest(source.files, source.path, self._shards, self.labels, self._image, self._label)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, i: int) -> Image.Image:
        group = int(torch.searchsorted(self._ends, i, right=True))
        value = self._column(group)[i - self.starts[group]].as_py()
        return decode((value["bytes"] if isinstance(value, dict) else value) or b"")

    def name(self, i: int) -> str:
        group = int(torch.searchsorted(self._ends, i, right=True))
        number = self._groups[group][0]
        first = self.starts[self._groups.index((number, 0))]
        return f"{below(self._shards[number], self._source.path)} row {i - first}"

    def _columns(self, file: Any, shard: str) -> tuple[str, str]:
        """The names of the image and of the label column."""
        there, found = file.schema_arrow.names, []
        for setting, given, usual in (("image", self._source.image, IMAGES), ("label", self._source.label, LABELS)):
            name = given or next((name for name in usual if name in there), usual[0])
            checks.column(name, there, below(shard, self._source.path), f"data.source.{setting}")
            found.append(name)
        return found[0], found[1]

    def _column(self, group: int) -> Any:
        """The image column of a row group, from the most recently used ones."""
        self._mine()
        with self._lock:
            if group not in self._kept:
                number, within = self._groups[group]
                table = self._file(number).read_row_group(within, columns=[self._image])
                self._kept[group] = table[self._image].combine_chunks()
                while len(self._kept) > 1 and self._bytes() > self._source.cache_mb * MEGABYTE:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]

    def _bytes(self) -> int:
        return sum(column.nbytes for column in self._kept.values())

    def _file(self, number: int) -> Any:
        import pyarrow.parquet as pq

        self._mine()
        if number not in self._open:
            handle = self._source.files.open(self._shards[number])
            self._open[number] = (pq.ParquetFile(handle), handle)
        return self._open[number][0]

    def _mine(self) -> None:
        if self._pid != os.getpid():
            self._inherited = self._open  # the parent's: closing them here could close its sockets
            self._forget()

    def _forget(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._open: dict[int, tuple[Any, BinaryIO]] = {}
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def __del__(self) -> None:
        if self._pid == os.getpid():
            for _, handle in self._open.values():
                handle.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_open", "_kept", "_lock", "_inherited")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _integers(column: Any, shard: str, name: str) -> Tensor:
    import pyarrow as pa

    if not pa.types.is_integer(column.type):
        raise ValueError(
            f"data.source.label={name!r} of {shard} holds {column.type}, not integers: name the column of class numbers"
        )
    return torch.from_numpy(column.fill_null(-1).to_numpy().astype("int64"))


def _feature_names(file: Any, label: str) -> tuple[str, ...] | None:
    metadata = (file.schema_arrow.metadata or {}).get(b"huggingface")
    features = json.loads(metadata).get("info", {}).get("features", {}) if metadata else {}
    names = features.get(label, {}).get("names")
    return tuple(names) if names else None

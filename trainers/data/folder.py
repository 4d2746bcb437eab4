"""Image folders: ``train/<class>/*.jpg``, and ``test/`` or ``val/`` beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image

from trainers.data import splits
from trainers.data.examples import decode, digest, name_ids
from trainers.data.files import Files, LocalFiles, below, listed

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Folder:
    """``path/train/<class>/...`` and ``path/test|validation|val|valid/<class>/...``; without a ``train`` folder the
    class folders lie in ``path`` itself and there is no test split.  Classes are the sorted folder names of training.

    ``test``: the folder to test on; left out, the first there is of the four.
    An example's id comes from its path below ``path``.

    Errors: ``ValueError`` for a missing path or split, and for a test class that training does not have.
    """

    path: str
    train: str = "train"
    test: str | None = None
    files: Files = field(default_factory=LocalFiles)

    @cached_property
    def _images(self) -> list[tuple[str, ...]]:
        """Every image as its path's parts below ``path``, at least (class, file)."""
        found = [path for path in listed(self.files, self.path) if path.lower().endswith(SUFFIXES)]
        parts = [tuple(below(path, self.path).split("/")) for path in found]
        return [part for part in parts if len(part) >= 2]

    @cached_property
    def _flat(self) -> bool:
        return not any(parts[0] == self.train for parts in self._images)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({parts[0] for parts in self._parts("train")[1]}))

    def _parts(self, split: str) -> tuple[str, list[tuple[str, ...]]]:
        """The split's folder and its images as parts below it."""
        if split == "train" and self._flat and self._images:
            return "", self._images
        names = () if self._flat else splits.names_of(split, self.train, self.test)
        for name in names:
            if found := [parts[1:] for parts in self._images if parts[0] == name and len(parts) >= 3]:
                return name, found
        wanted = " or ".join(f"{name}/<class>/" for name in names or ("<class>/",))
        raise ValueError(
            f"data.path={self.path} has no images in {wanted} for split {split!r}: put them there"
            + (", or set data.test=N to hold N training examples out for testing" if split == "test" else "")
        )

    def split(self, name: str) -> "FolderExamples":
        folder, parts = self._parts(name)
        numbers = {label: k for k, label in enumerate(self.classes)}
        if strange := sorted({part[0] for part in parts} - set(numbers)):
            raise ValueError(
                f"data.path={self.path}: {folder}/ has classes that training has not: {', '.join(strange[:5])}; "
                "rename or remove these folders"
            )
        paths = ["/".join(([folder] if folder else []) + list(part)) for part in parts]
        return FolderExamples(self, paths, [numbers[part[0]] for part in parts])


class FolderExamples:
    starts = None

    def __init__(self, source: Folder, paths: Sequence[str], labels: Sequence[int]) -> None:
        self._source, self._paths = source, paths
        self.labels, self.ids = torch.tensor(labels, dtype=torch.int64), name_ids(paths)

    @cached_property
    def digest(self) -> str:
        root = self._source.path.rstrip("/")
        return digest(self._source.files, root, [f"{root}/{path}" for path in self._paths], self.labels)

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, i: int) -> Image.Image:
        with self._source.files.open(f"{self._source.path.rstrip('/')}/{self._paths[i]}") as file:
            return decode(file.read())

    def name(self, i: int) -> str:
        return self._paths[i]

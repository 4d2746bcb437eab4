"""CUB-200-2011: photographs of 200 kinds of birds, each with one box."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image

from trainers.data.box_labels.geometry import Boxed, checked, image_size
from trainers.data.examples import decode, digest, name_ids
from trainers.data.files import Files, LocalFiles


@dataclass(frozen=True)
class CUB:
    """``path/images.txt`` (``id file``), ``image_class_labels.txt`` (``id class``), ``train_test_split.txt``
    (``id 1`` for training), ``bounding_boxes.txt`` (``id x y width height``, pixels) and ``images/<file>``.

    ``split`` gives labelled images as any source does; ``boxes`` those of a split by example id.  A class is named
    after the folder of its images, and an example's id comes from its file.

    Source: Wah et al., *The Caltech-UCSD Birds-200-2011 Dataset*, 2011.  The set has terms of its own and is not
    fetched.
    Errors: ``ValueError`` with file and line for a line of another form, an image that one file has and another lacks,
    and a box without area or outside its image.
    """

    path: str
    files: Files = field(default_factory=LocalFiles)

    @cached_property
    def _images(self) -> dict[str, str]:
        """File by image id."""
        return {key: rest[0] for key, (_, rest) in self._table("images.txt", "id file").items()}

    @cached_property
    def _labels(self) -> dict[str, int]:
        found = {}
        for key, (line, rest) in self._joined("image_class_labels.txt", "id class").items():
            if not rest[0].isdigit() or int(rest[0]) < 1:
                raise ValueError(f"{self._at('image_class_labels.txt', line)}: class {rest[0]!r} must be 1 or more")
            found[key] = int(rest[0]) - 1
        return found

    @cached_property
    def classes(self) -> tuple[str, ...]:
        folders = {self._labels[key]: file.rsplit("/", 1)[0] for key, file in self._images.items()}
        gap = next((k for k in range(len(folders)) if k not in folders), None)
        if gap is not None:
            raise ValueError(
                f"{self._file('image_class_labels.txt')}: class {gap + 1} has no image; number classes from 1 on"
            )
        return tuple(folders[k] for k in range(len(folders)))

    def split(self, name: str) -> "CUBExamples":
        keys = self._members(name)
        return CUBExamples(self, [self._images[key] for key in keys], [self._labels[key] for key in keys])

    def boxes(self, split: str) -> dict[int, Boxed]:
        """By example id; opens the head of each of the split's images."""
        lines, keys = self._joined("bounding_boxes.txt", "id x y width height"), self._members(split)
        ids = name_ids(self._images[key] for key in keys).tolist()
        return {number: self._boxed(key, *lines[key]) for number, key in zip(ids, keys, strict=True)}

    def _boxed(self, key: str, line: int, values: Sequence[str]) -> Boxed:
        where = self._at("bounding_boxes.txt", line)
        try:
            x, y, w, h = (float(value) for value in values)
        except ValueError as error:
            raise ValueError(f"{where}: {' '.join(values)!r} are not four numbers x y width height") from error
        width, height = image_size(self.files, self._file(f"images/{self._images[key]}"))
        box = checked((x, y, x + w, y + h), width, height, where)
        return Boxed(torch.tensor([box], dtype=torch.float64), width, height)

    def _members(self, split: str) -> list[str]:
        if split not in ("train", "test"):
            raise ValueError(f"CUB has no split {split!r}: train or test")
        table = self._joined("train_test_split.txt", "id 0|1")
        for line, rest in table.values():
            if rest[0] not in ("0", "1"):
                raise ValueError(f"{self._at('train_test_split.txt', line)}: {rest[0]!r} must be 1 (train) or 0 (test)")
        members = [key for key in self._images if table[key][1][0] == ("1" if split == "train" else "0")]
        if not members:
            raise ValueError(f"{self._file('train_test_split.txt')} puts no image into {split}: complete the file")
        return members

    def _joined(self, name: str, form: str) -> dict[str, tuple[int, list[str]]]:
        """The table of a file that has a line for each image, and for no other."""
        table = self._table(name, form)
        for key, (line, _) in table.items():
            if key not in self._images:
                raise ValueError(
                    f"{self._at(name, line)}: image {key} is not in images.txt; remove it, or add it there"
                )
        for key, file in self._images.items():
            if key not in table:
                raise ValueError(
                    f"{self._file(name)} has no line for image {key} ({file}): add it, or remove the image"
                )
        return table

    def _table(self, name: str, form: str) -> dict[str, tuple[int, list[str]]]:
        """``{id: (line number, the other fields)}`` of a file of lines of ``form``."""
        if not self.files.exists(self._file(name)):
            raise ValueError(f"data.path={self.path} has no {name}: give the folder that CUB-200-2011 was unpacked to")
        with self.files.open(self._file(name)) as file:
            lines = file.read().decode(errors="replace").splitlines()
        table: dict[str, tuple[int, list[str]]] = {}
        for number, line in enumerate(lines, 1):
            if not (fields := line.split()):
                continue
            if len(fields) != len(form.split()):
                raise ValueError(f"{self._at(name, number)}: {line.strip()!r} is not '{form}'; correct the line")
            if fields[0] in table:
                raise ValueError(f"{self._at(name, number)}: image {fields[0]} has a line before; remove one")
            table[fields[0]] = number, fields[1:]
        if not table:
            raise ValueError(f"{self._file(name)} is empty: lines are '{form}'")
        return table

    def _file(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"

    def _at(self, name: str, line: int) -> str:
        return f"{self._file(name)} line {line}"


class CUBExamples:
    starts = None

    def __init__(self, source: CUB, paths: Sequence[str], labels: Sequence[int]) -> None:
        self._files, self._root, self._paths = source.files, f"{source.path.rstrip('/')}/images", paths
        self.labels, self.ids = torch.tensor(labels, dtype=torch.int64), name_ids(paths)

    @cached_property
    def digest(self) -> str:
        return digest(self._files, self._root, [f"{self._root}/{path}" for path in self._paths], self.labels)

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, i: int) -> Image.Image:
        with self._files.open(f"{self._root}/{self._paths[i]}") as file:
            return decode(file.read())

    def name(self, i: int) -> str:
        return self._paths[i]

"""The examples a model is judged on: one split, nothing of the training set, each image read when it is asked for."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from trainers.data import checks, order, roster
from trainers.data.examples import GREY, CorruptError, Examples, Source, coloured, fitted
from trainers.data.photographic import Photographic
from trainers.types import Batch

_THREADS = 8


class HeldOut:
    """The test split of ``source``: ``ids``, ``labels``, and the images of any of its positions.

    ``validation``, ``test``, ``split_seed``, ``lanes``: as the model was trained with, so that none of its training
    examples is among them (with lanes it held out whole shards); with ``test=0`` the set's own test split, and training
    examples are not looked at.  ``input_size``: (C, H, W) to scale and crop to; left out, all images must have one
    size.  ``transform``: its evaluation transform takes the place of that.  ``limit``: a keyed draw of so many.
    ``only``: file names, of which no other is taken.

    ``on_corrupt``: "error" stops at an image that cannot be decoded; with "skip" it stays among the examples, black,
    and ``corrupt`` holds its id and name, once it was read: whoever judges counts it as wrong.

    Errors: ``ValueError`` for every setting or set that cannot work.
    """

    def __init__(
        self,
        source: Source,
        input_size: Sequence[int] | None = None,
        transform: Photographic | None = None,
        validation: int = 0,
        test: int = 0,
        split_seed: int = 0,
        limit: int | None = None,
        only: Sequence[str] | None = None,
        on_corrupt: str = "error",
        lanes: int | None = None,
    ) -> None:
        checks.one_of("data.on_corrupt", on_corrupt, ("error", "skip"))
        self.classes = tuple(source.classes)
        self._examples, positions = _members(source, validation, test, split_seed, lanes is not None)
        self.of = len(positions)
        if only is not None:
            positions = _named(self._examples, positions, only)
        self._positions = order.limited(positions, self._examples.ids, limit, split_seed)
        if not len(self._positions):
            raise ValueError("no examples to judge on: the test split is empty; choose another, or set data.test=N")
        self.ids, self.labels = self._examples.ids[self._positions], self._examples.labels[self._positions]
        if len(self.ids.unique()) < len(self.ids):
            raise ValueError("two examples have the same id: verdicts are told apart by it; give each its own")
        self.corrupt: dict[int, str] = {}
        self._skip = on_corrupt == "skip"
        self._fit, self.input_size = self._fitting(input_size, transform)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """sha256 over the class names, what lies in the split, and how images are scaled: any examples of one split
        can be set beside each other."""
        parts = ["\0".join(self.classes), self._examples.digest, str(self.input_size), repr(self._fit)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def chosen(self) -> str:
        """sha256 over which examples of the split these are."""
        return hashlib.sha256(self.ids.numpy().tobytes()).hexdigest()

    def name(self, row: int) -> str:
        """What a person would look for."""
        return self._examples.name(int(self._positions[row]))

    def batch(self, rows: Tensor, device: str | torch.device = "cpu") -> Batch:
        """The examples at ``rows: (N,) int64`` of this split, pixels in [0, 1]."""
        with ThreadPoolExecutor(_THREADS) as pool:  # Pillow decodes outside the interpreter lock
            x = torch.stack(list(pool.map(self._image, self._positions[rows].tolist())))
        parts = (x.to(device).float().div_(255), self.labels[rows], self.ids[rows])
        return Batch(*(part.to(device) for part in parts))

    def _image(self, position: int) -> Tensor:
        try:
            image = coloured(self._examples.image(position), self.input_size[0])
        except CorruptError as error:
            name = self._examples.name(position)
            if not self._skip:
                raise ValueError(
                    f"image {name} cannot be decoded ({error}): repair it, or set data.on_corrupt=skip to count it as "
                    "wrong"
                ) from error
            self.corrupt[int(self._examples.ids[position])] = name
            return torch.zeros(self.input_size, dtype=torch.uint8)
        x = self._fit(image)
        if x.shape != torch.Size(self.input_size):
            channels, height, width = self.input_size
            raise ValueError(
                f"image {self._examples.name(position)} is {x.shape[1]}x{x.shape[2]}, others are {height}x{width}: set "
                f"data.input_size=[{channels},{height},{width}] to scale and crop them all"
            )
        return x

    def _fitting(
        self, given: Sequence[int] | None, transform: Photographic | None
    ) -> tuple[Callable[[Image.Image], Tensor], tuple[int, int, int]]:
        if given is None:
            return _AsItIs(), self._first_size()
        size = checks.image_size(given)
        if transform is not None:
            return transform.evaluation(size), size
        return _Scaled(size[1], size[2]), size

    def _first_size(self) -> tuple[int, int, int]:
        for position in self._positions[:1000].tolist():
            try:
                image = self._examples.image(position)
            except CorruptError:
                continue
            return (1 if image.mode in GREY else 3), image.height, image.width
        raise ValueError("none of the first images can be decoded: data.source reads the wrong column or files")


class _AsItIs:
    def __repr__(self) -> str:
        return "as it is"

    def __call__(self, image: Image.Image) -> Tensor:
        return pil_to_tensor(image)


class _Scaled:
    def __init__(self, height: int, width: int) -> None:
        self._size = (height, width)

    def __repr__(self) -> str:
        return f"scaled to cover {self._size}, cropped at the centre"

    def __call__(self, image: Image.Image) -> Tensor:
        return pil_to_tensor(fitted(image, *self._size))


def _members(
    source: Source, validation: int, test: int, split_seed: int, whole_shards: bool
) -> tuple[Examples, Tensor]:
    if test:
        return roster.opened(source, validation, test, split_seed, whole_shards).members["test"]
    own = source.split("test")
    checks.labels_in_range(own, "test", source.classes)
    return own, torch.arange(len(own))


def _named(examples: Examples, positions: Tensor, only: Sequence[str]) -> Tensor:
    """Those whose file is named; a folder before the name is not looked at."""
    wanted = {PurePosixPath(name.strip()).name for name in only if name.strip()}
    there = defaultdict[str, list[int]](list)
    for position in positions.tolist():
        there[PurePosixPath(examples.name(position)).name].append(position)
    missing = sorted(wanted - set(there))
    if missing:
        raise ValueError(
            f"only names {len(missing)} images that are not there ({', '.join(missing[:3])}): give the list of "
            "this set, and data whose images are files (data=folder)"
        )
    if twice := sorted(name for name in wanted if len(there[name]) > 1):
        places = ", ".join(examples.name(position) for position in there[twice[0]][:3])
        raise ValueError(
            f"only names {twice[0]}, and {len(there[twice[0]])} images are called that ({places}): folders are not "
            "looked at; give each file a name of its own"
        )
    return torch.tensor(sorted(there[name][0] for name in wanted), dtype=torch.int64)

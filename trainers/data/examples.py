"""A split of a data set: labelled images that can be had in any order, each with an id of its own."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from trainers import noise
from trainers.data.files import Files, below

GREY = ("1", "L", "LA", "I", "I;16", "F")
"""Pillow's modes of one channel."""
CONTENT_LIMIT = 2 << 30
"""Bytes up to which a digest reads every byte; above, it reads names, sizes and labels (see ``digest``)."""


class CorruptError(Exception):
    """An image that cannot be decoded; the message says why."""


class Examples(Protocol):
    """``labels`` and ``ids``: ``(n,) int64``; ``digest``: sha256 hex.  An id depends on where an example lies in
    its set, never on its neighbours, so it stays when another one is skipped.

    ``starts``: positions at which a new shard begins when reading in order is much cheaper than reading at
    random, else None.  ``image`` raises ``CorruptError``; ``name`` is what a person would look for.
    """

    @property
    def labels(self) -> Tensor: ...
    @property
    def ids(self) -> Tensor: ...
    @property
    def digest(self) -> str: ...
    @property
    def starts(self) -> Sequence[int] | None: ...
    def __len__(self) -> int: ...
    def image(self, i: int) -> Image.Image: ...
    def name(self, i: int) -> str: ...


class Source(Protocol):
    """Where examples come from.  ``split`` takes "train" or "test" and raises ``ValueError`` for one it has not."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    def split(self, name: str) -> Examples: ...


def decode(content: bytes) -> Image.Image:
    """The picture in ``content``, decoded whole, so that a truncated file is found out here."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except UnidentifiedImageError as error:
        raise CorruptError("no picture in a format that Pillow knows" if content else "no bytes") from error
    except Exception as error:  # Pillow's plugins raise a dozen types on damaged input
        raise CorruptError(f"{type(error).__name__}: {error}") from error
    return image


def coloured(image: Image.Image, channels: int) -> Image.Image:
    """Grey for one channel, RGB for three."""
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def fitted(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scaled (bicubic) to cover ``height × width``, then cropped at the centre."""
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


def hashed(text: str) -> int:
    """The first 8 bytes of sha256 as a signed 64-bit integer: stable across machines and versions."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def row_ids(shard: str, rows: int) -> Tensor:
    """Ids of rows 0 ... ``rows - 1`` of a shard; distinct inside it, since the mixing is a bijection."""
    return noise.stream(torch.arange(rows), hashed(shard))


def name_ids(names: Iterable[str]) -> Tensor:
    return torch.tensor([hashed(name) for name in names], dtype=torch.int64)


def digest(files: Files, root: str, paths: Sequence[str], labels: Tensor, *extra: str) -> str:
    """sha256 over names, sizes and labels, and over every byte where all is at most ``CONTENT_LIMIT``.

    Above it (ImageNet: 150 GB) reading everything would cost minutes at each start, so a changed pixel that leaves
    every size as it was goes unseen.
    """
    total = hashlib.sha256()
    sizes = [files.size(path) for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        total.update(f"{below(path, root)}\0{size}\0".encode())
    for part in extra:
        total.update(part.encode())
    total.update(labels.numpy().tobytes())
    if sum(sizes) <= CONTENT_LIMIT:
        for path in paths:
            with files.open(path) as file:
                while chunk := file.read(1 << 22):
                    total.update(chunk)
    return total.hexdigest()

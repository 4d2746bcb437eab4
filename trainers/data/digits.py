"""scikit-learn's handwritten digits: 1,797 real 8×8 images in 10 classes, embedded in the library."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers import noise
from trainers.data.in_memory import InMemory

TEST = 540


class DigitExamples(InMemory):
    def __init__(self, rows: Tensor, images: np.ndarray, labels: Tensor) -> None:
        super().__init__(images[rows.numpy()], labels[rows], rows, "digit")


@dataclass(frozen=True)
class Digits:
    """Grey levels 0 ... 16 become ``round(255·v/16)`` of 255 (the half-way cases up), so a pixel is within 0.002 of
    ``v/16``.  A fixed stratified split: 1,257 to train, 540 to test, each class in proportion.

    The id of an example is its row in ``load_digits()``.
    Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI repository, 1998.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple("0123456789")

    def split(self, name: str) -> DigitExamples:
        if name not in ("train", "test"):
            raise ValueError(f"digits have no split {name!r}: train or test")
        images, labels = _load()
        train, test = _stratified(labels)
        return DigitExamples(train if name == "train" else test, images, labels)


@cache
def _load() -> tuple[np.ndarray, Tensor]:
    table = _table()
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    return np.floor(images * 255 / 16 + 0.5).astype(np.uint8), torch.from_numpy(labels.astype(np.int64))


def _table() -> np.ndarray:
    """A row an image, its label last: from the file that ``load_digits()`` reads, as scikit-learn and what it stands on
    take more than a second to import, in every process that trains."""
    found = find_spec("sklearn")
    places = (found and found.submodule_search_locations) or []
    for path in (Path(place, "datasets", "data", "digits.csv.gz") for place in places):
        if path.exists():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def _stratified(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted rows of train and test: every class in a keyed order, spread evenly, the first ``TEST`` taken."""
    share = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        share[rows[noise.permutation(len(rows), int(label))]] = (torch.arange(len(rows)) + 0.5).double() / len(rows)
    order = share.argsort(stable=True)
    return order[TEST:].sort().values, order[:TEST].sort().values

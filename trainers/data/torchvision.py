"""Any data set of torchvision, by its class name, from files that are already there."""

import difflib
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers import noise
from trainers.data.examples import CorruptError, hashed
from trainers.data.splits import TEST_NAMES


@dataclass(frozen=True)
class Torchvision:
    """``torchvision.datasets.<name>(path, ...)``; splits by its ``train=`` or ``split=`` argument.

    Nothing is downloaded unless ``download`` says so.  ``arguments`` go to the class as they are.
    ``test``: the value of ``split=`` to test on; left out, the first that works of test, validation, val, valid.
    An example's id comes from its split and its index.

    Errors: ``ValueError`` for an unknown name (with the nearest), files that are not there, a missing test split.
    """

    name: str
    path: str
    test: str | None = None
    download: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        train = self._train
        names = getattr(train.dataset, "classes", None)
        return tuple(map(str, names)) if names else tuple(str(k) for k in range(int(train.labels.max()) + 1))

    @cached_property
    def _train(self) -> "TorchvisionExamples":
        return TorchvisionExamples(self._opened("train"), "train", self.name)

    def split(self, name: str) -> "TorchvisionExamples":
        return self._train if name == "train" else TorchvisionExamples(self._opened(name), name, self.name)

    def _opened(self, split: str) -> Any:
        known = inspect.signature(self._class).parameters
        settings = dict(self.arguments) | {
            k: v for k, v in (("root", self.path), ("download", self.download)) if k in known
        }
        if "train" in known:
            choices: list[dict[str, Any]] = [{"train": split == "train"}]
        elif "split" in known:
            names = ("train",) if split == "train" else ((self.test,) if self.test else TEST_NAMES)
            choices = [{"split": name} for name in names]
        elif split == "train":
            choices = [{}]
        else:
            raise ValueError(
                f"torchvision.datasets.{self.name} has no test split: set data.test=N to hold N training examples out"
            )
        errors = []
        for choice in choices:
            try:
                return self._class(**settings, **choice)
            except (RuntimeError, ValueError, FileNotFoundError, TypeError) as error:
                errors.append(str(error))
        raise ValueError(
            f"data.source: torchvision.datasets.{self.name} cannot open data.path={self.path}: {errors[0]} "
            "(give the folder that holds its files, or set data.source.download=true)"
        )

    @cached_property
    def _class(self) -> Any:
        from torchvision import datasets

        if self.name not in datasets.__all__:
            near = difflib.get_close_matches(self.name, datasets.__all__, n=3, cutoff=0.0)
            raise ValueError(f"data.source.name={self.name!r} is no data set of torchvision: nearest {', '.join(near)}")
        return getattr(datasets, self.name)


class TorchvisionExamples:
    starts = None

    def __init__(self, dataset: Any, split: str, name: str) -> None:
        self.dataset, self._split, self._name = dataset, split, name
        self.labels = _labels(dataset)
        self.ids = noise.stream(torch.arange(len(dataset)), hashed(f"{name}/{split}"))

    @cached_property
    def digest(self) -> str:
        """Over labels and pixels where the set holds its pixels in memory, else over labels and paths."""
        total = hashlib.sha256(f"{self._name}/{self._split}".encode() + self.labels.numpy().tobytes())
        pixels = getattr(self.dataset, "data", None)
        if isinstance(pixels, np.ndarray | Tensor):
            total.update(np.ascontiguousarray(np.asarray(pixels)).tobytes())
        else:
            total.update(repr(getattr(self.dataset, "samples", len(self))).encode())
        return total.hexdigest()

    def __len__(self) -> int:
        return len(self.dataset)

    def image(self, i: int) -> Image.Image:
        try:
            return self.dataset[i][0]
        except OSError as error:
            raise CorruptError(f"{type(error).__name__}: {error}") from error

    def name(self, i: int) -> str:
        return f"{self._name} {self._split} {i}"


def _labels(dataset: Any) -> Tensor:
    """The labels a set keeps under one of torchvision's three names, else one by one (which decodes every image)."""
    for attribute in ("targets", "labels", "_labels"):
        if (values := getattr(dataset, attribute, None)) is not None:
            return torch.as_tensor(np.asarray(values), dtype=torch.int64)
    return torch.tensor([int(dataset[i][1]) for i in range(len(dataset))], dtype=torch.int64)

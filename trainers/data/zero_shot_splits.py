"""Zero-shot tasks: features of images, attributes of classes, and which classes are seen; and the published ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

FEATURES = ("features", "labels", "image_files")
SPLITS = ("att", "allclasses_names", "trainval_loc", "test_seen_loc", "test_unseen_loc", "train_loc", "val_loc")


@dataclass(frozen=True, eq=False)
class ZeroShotSet:
    """``features (N, d)`` and ``classes (N,) int64`` of N images, ``attributes (K, a)`` and ``names`` of K classes.

    ``trainval_loc``, ``test_seen_loc``, ``test_unseen_loc``: rows, from 0, named as in the published files: to learn
    from, and to judge seen and unseen classes on.  ``validation``: the training classes that settings are chosen on;
    left empty, whoever chooses draws them.  ``origin``: what errors call the set.
    ``dataclasses.replace(task, features=...)`` is the same task on another backbone's features of the same images.

    Errors: ``ValueError`` for sizes that do not match, values that are not finite, rows in two splits, an unseen class
    in training, a class of ``test_seen_loc`` that is not, and validation classes that leave nothing to learn from.
    """

    features: Tensor
    classes: Tensor
    attributes: Tensor
    names: tuple[str, ...]
    trainval_loc: Tensor
    test_seen_loc: Tensor
    test_unseen_loc: Tensor
    validation: tuple[int, ...] = ()
    image_files: tuple[str, ...] = ()
    origin: str = "the zero-shot set"

    def __post_init__(self) -> None:
        self._sizes()
        self._values()
        self._apart()
        self._classes()

    @property
    def seen(self) -> Tensor:
        """The class numbers there are to learn from, sorted."""
        return self.classes[self.trainval_loc].unique()

    @property
    def unseen(self) -> Tensor:
        """The class numbers of ``test_unseen_loc``, sorted."""
        return self.classes[self.test_unseen_loc].unique()

    def _sizes(self) -> None:
        for name, got, wanted, of in (
            ("features", len(self.features), len(self.classes), "labels"),
            ("attributes", len(self.attributes), len(self.names), "class names"),
        ):
            if got != wanted:
                raise ValueError(
                    f"{self.origin}: {name} has {got} rows, and there are {wanted} {of}: give one row for each, in "
                    "their order"
                )

    def _values(self) -> None:
        for name, table, each in (("features", self.features, "image"), ("attributes", self.attributes, "class")):
            if len(wrong := (~table.isfinite()).nonzero()):
                row, column = wrong[0].tolist()
                raise ValueError(
                    f"{self.origin}: {name} has {len(wrong)} values that are not finite, the first "
                    f"{table[row, column].item():g} at {each} {row + 1}, entry {column + 1}: repair or export it again"
                )

    def _apart(self) -> None:
        parts = {name: getattr(self, name) for name in ("trainval_loc", "test_seen_loc", "test_unseen_loc")}
        for name, rows in parts.items():
            if not len(rows):
                raise ValueError(f"{self.origin}: {name} is empty: zero-shot learning needs images in all three splits")
        owner: dict[int, str] = {}
        for name, rows in parts.items():
            for row in rows.tolist():
                if row in owner:
                    raise ValueError(
                        f"{self.origin}: {name} overlaps {owner[row]}: image {row + 1} is in both or twice; an image "
                        "is learnt from or judged on, once: take it out of one"
                    )
                owner[row] = name

    def _classes(self) -> None:
        seen, unseen = set(self.seen.tolist()), set(self.unseen.tolist())
        if both := sorted(seen & unseen):
            raise ValueError(
                f"{self.origin}: test_unseen_loc has images of {self._named(both)}, which trainval_loc has too: "
                "nothing of an unseen class may be learnt from; move them to test_seen_loc"
            )
        if strange := sorted(set(self.classes[self.test_seen_loc].tolist()) - seen):
            raise ValueError(
                f"{self.origin}: test_seen_loc has images of {self._named(strange)}, of which trainval_loc has none: "
                "move them to test_unseen_loc"
            )
        if strange := sorted(set(self.validation) - seen):
            raise ValueError(
                f"{self.origin}: validation holds {self._named(strange)}, of which trainval_loc has no image: settings "
                "are chosen on training classes only; take it out of val_loc"
            )
        if self.validation and (len(set(self.validation)) < 2 or len(seen - set(self.validation)) < 2):
            raise ValueError(
                f"{self.origin}: {len(set(self.validation))} of {len(seen)} training classes are for validation: at "
                "least 2 must be, and 2 others remain; change val_loc"
            )

    def _named(self, classes: Sequence[int]) -> str:
        return f"{len(classes)} class(es), such as {self.names[classes[0]]!r}"


def read(features: str, splits: str) -> ZeroShotSet:
    """The task in ``features`` (``res101.mat``) and ``splits`` (``att_splits.mat``) of one data set.

    ``features``: ``features (d, N)``, ``labels (N, 1)``, ``image_files (N, 1)``.  ``splits``: ``att (a, K)``,
    ``allclasses_names (K, 1)`` and five ``*_loc``, rows of the images.  Labels and rows count from 1 in the files and
    from 0 here.  Of ``train_loc`` and ``val_loc`` only the *classes* are used, for ``validation``: in the published
    files they also hold images of ``test_seen_loc`` (CUB: 5,875 + 2,946 = 7,057 + 1,764), which nothing may be chosen
    on.  Class attributes are taken as ``att`` has them.

    Source: Xian, Lampert, Schiele and Akata, *Zero-shot learning: a comprehensive evaluation of the good, the bad and
    the ugly*, 1707.00600, the "proposed splits".
    Errors: ``ValueError`` naming file, variable, value and remedy; ``ImportError`` without scipy.
    """
    images, tables = _load(features, FEATURES), _load(splits, SPLITS)
    x, att = (_matrix(path, name, table[name]) for path, name, table in (
        (features, "features", images), (splits, "att", tables),
    ))  # fmt: skip
    files, names = _texts(images["image_files"]), _texts(tables["allclasses_names"])
    _one_each(features, "features", x.shape[1], "image_files", len(files), features)
    _one_each(splits, "att", att.shape[1], "allclasses_names", len(names), splits)
    labels = _numbers(features, "labels", images["labels"], len(names), f"the {len(names)} classes of {splits}")
    _one_each(features, "features", x.shape[1], "labels", len(labels), features)
    loc = {
        name: _numbers(splits, name, tables[name], len(labels), f"the {len(labels)} images of {features}")
        for name in SPLITS
        if name.endswith("_loc")
    }
    learnt, validation = (set(labels[loc[name]].tolist()) for name in ("train_loc", "val_loc"))
    if both := sorted(learnt & validation):
        raise ValueError(
            f"{splits}: val_loc overlaps train_loc in {len(both)} class(es), such as {names[both[0]]!r}: settings are "
            "chosen on classes that are not learnt from; take them out of one"
        )
    return ZeroShotSet(
        features=torch.from_numpy(np.ascontiguousarray(x.T)),
        classes=labels,
        attributes=torch.from_numpy(np.ascontiguousarray(att.T)),
        names=names,
        trainval_loc=loc["trainval_loc"],
        test_seen_loc=loc["test_seen_loc"],
        test_unseen_loc=loc["test_unseen_loc"],
        validation=tuple(sorted(validation)),
        image_files=files,
        origin=splits,
    )


def _load(path: str, wanted: Iterable[str]) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(f"{path} is a MATLAB file, which scipy reads: pip install scipy") from error
    try:
        table = loadmat(path, variable_names=list(wanted))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file: give the .mat files of the published splits") from error
    except NotImplementedError as error:
        raise ValueError(f"{path} is MATLAB 7.3 (HDF5), not read here: save it again with -v7") from error
    except Exception as error:  # scipy raises a dozen types on damaged input
        raise ValueError(f"{path} cannot be read as a MATLAB file ({error}): fetch it again") from error
    if missing := [name for name in wanted if name not in table]:
        raise ValueError(f"{path} has no variable {', '.join(missing)}: give the file that holds {', '.join(wanted)}")
    return table


def _matrix(path: str, name: str, value: Any) -> np.ndarray:
    table = np.asarray(value)
    if table.ndim != 2 or table.dtype.kind not in "fiu" or not table.size:
        raise ValueError(
            f"{path}: {name} is {table.dtype} of shape {table.shape}, not a matrix of numbers: export it again"
        )
    return table if table.dtype.kind == "f" else table.astype(np.float64)


def _texts(value: Any) -> tuple[str, ...]:
    """A cell array of texts, or a matrix of characters with a text a row."""
    cells = [np.asarray(cell).ravel() for cell in np.asarray(value).ravel()]
    return tuple(str(cell[0]).strip() if cell.size else "" for cell in cells)


def _one_each(path: str, name: str, columns: int, other: str, entries: int, where: str) -> None:
    if columns != entries:
        raise ValueError(
            f"{path}: {name} has {columns} columns, and {other} of {where} {entries} entries: give files of one data "
            f"set, with a column of {name} for each"
        )


def _numbers(path: str, name: str, value: Any, most: int, of: str) -> Tensor:
    """Whole numbers in 1 ... ``most``, less 1."""
    numbers = np.asarray(value).ravel()
    if numbers.dtype.kind not in "fiu" or not (numbers == np.floor(numbers)).all():
        raise ValueError(f"{path}: {name} holds {numbers.dtype} that are not whole numbers: export it again")
    wrong = numbers[(numbers < 1) | (numbers > most)]
    if len(wrong):
        raise ValueError(
            f"{path}: {name} holds {wrong[0]:g}, outside 1 ... {most}, {of}: they count from 1; give both files of one "
            "data set"
        )
    return torch.from_numpy(numbers.astype(np.int64) - 1)

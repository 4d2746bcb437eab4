"""The published layout as MATLAB writes it is read whole; what is wrong with it is said in one message."""

import builtins
import dataclasses

import numpy as np
import pytest
import torch
from scipy.io import savemat

from trainers.data.zero_shot_splits import ZeroShotSet, read

NAMES = ["ant", "bee", "cow", "dog", "eel", "fox", "gnu"]
LABELS = np.repeat(np.arange(1, 8), 4)  # classes 1 to 5 are seen, 6 and 7 are not


def cells(texts: list[str]) -> np.ndarray:
    table = np.empty((len(texts), 1), dtype=object)
    for row, text in enumerate(texts):
        table[row, 0] = text
    return table


def column(values) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)[:, None]


@pytest.fixture
def tables() -> tuple[dict, dict]:
    """``(features, splits)`` of 28 images: of each seen class the last is for testing, and, as in the published files,
    in ``train_loc`` or ``val_loc`` too."""
    rng = np.random.default_rng(0)
    rows = np.arange(1, 29)
    held = (rows % 4 == 0) & (rows <= 20)
    images = {
        "features": rng.normal(size=(9, 28)),
        "labels": column(LABELS),
        "image_files": cells([f"/data/{NAMES[k - 1]}/{i}.jpg" for i, k in enumerate(LABELS)]),
    }
    splits = {
        "att": rng.normal(size=(3, 7)),
        "allclasses_names": cells(NAMES),
        "trainval_loc": column(rows[(rows <= 20) & ~held]),
        "test_seen_loc": column(rows[held]),
        "test_unseen_loc": column(rows[rows > 20]),
        "train_loc": column(rows[rows <= 12]),
        "val_loc": column(rows[(rows > 12) & (rows <= 20)]),
    }
    return images, splits


@pytest.fixture
def written(tmp_path):
    def write(images: dict, splits: dict) -> tuple[str, str]:
        paths = tmp_path / "res101.mat", tmp_path / "att_splits.mat"
        for path, table in zip(paths, (images, splits), strict=True):
            savemat(path, table)
        return str(paths[0]), str(paths[1])

    return write


def test_everything_is_read_and_counts_from_zero(tables, written):
    images, splits = tables
    task = read(*written(images, splits))
    np.testing.assert_array_equal(task.features, images["features"].T)
    np.testing.assert_array_equal(task.attributes, splits["att"].T)
    assert task.classes.tolist() == (LABELS - 1).tolist()
    assert task.names == tuple(NAMES)
    assert task.image_files[5] == "/data/bee/5.jpg"
    assert task.seen.tolist() == [0, 1, 2, 3, 4]
    assert task.unseen.tolist() == [5, 6]
    assert task.validation == (3, 4)
    for name in ("trainval_loc", "test_seen_loc", "test_unseen_loc"):
        assert getattr(task, name).tolist() == (splits[name].ravel() - 1).astype(int).tolist()


def test_rows_for_columns_small_integers_and_text_matrices_are_read_too(tables, written):
    images, splits = tables
    images["labels"] = LABELS[None].astype(np.uint8)
    splits["test_seen_loc"] = splits["test_seen_loc"].T.astype(np.uint16)
    splits["allclasses_names"] = np.array(NAMES)
    images["features"] = images["features"].astype(np.float32)
    task = read(*written(images, splits))
    assert task.names == tuple(NAMES)
    assert task.classes.tolist() == (LABELS - 1).tolist()
    assert task.test_seen_loc.tolist() == [3, 7, 11, 15, 19]
    assert task.features.dtype == torch.float32


def changed(where: int, name: str, value):
    def change(tables):
        table = tables[where][name]
        tables[where][name] = value(table) if callable(value) else value

    return change


def put(row: int, value: float):
    def change(table: np.ndarray) -> np.ndarray:
        table = table.copy()
        table[row] = value
        return table

    return change


REFUSED = {
    "fewer labels": (changed(0, "labels", lambda t: t[:-1]), r"res101.mat: features has 28 columns, and labels .* 27"),
    "fewer files": (changed(0, "image_files", lambda t: t[:9]), r"res101.mat: features has 28 .* image_files .* 9 "),
    "transposed": (changed(1, "att", lambda t: t.T), r"att_splits.mat: att has 3 columns, and allclasses_names .* 7"),
    "a label too many": (changed(0, "labels", put(3, 8)), r"res101.mat: labels holds 8, outside 1 ... 7, the 7 class"),
    "from 0": (
        changed(1, "trainval_loc", put(0, 0)),
        r"att_splits.mat: trainval_loc holds 0, outside 1 ... 28.*res101",
    ),
    "another set's": (
        changed(1, "test_unseen_loc", put(2, 99)),
        r"att_splits.mat: test_unseen_loc holds 99, .*1 ... 28",
    ),
    "not whole": (changed(1, "val_loc", put(0, 1.5)), r"att_splits.mat: val_loc holds float64 that are not whole"),
    "not a number": (changed(1, "val_loc", put(0, np.nan)), r"att_splits.mat: val_loc holds .*not whole"),
    "text": (changed(0, "features", np.array(["x"])), r"res101.mat: features is <U1 .*not a matrix of numbers"),
    "empty split": (changed(1, "test_seen_loc", np.zeros((0, 1))), r"att_splits.mat: test_seen_loc is empty"),
    "twice": (changed(1, "test_seen_loc", put(0, 8)), r"test_seen_loc overlaps test_seen_loc: image 8 is in both"),
    "overlap": (
        changed(1, "test_seen_loc", put(0, 3)),
        r"att_splits.mat: test_seen_loc overlaps trainval_loc: image 3 ",
    ),
    "unseen in training": (
        changed(0, "labels", put(1, 6)),
        r"att_splits.mat: test_unseen_loc has images of 1 class.*'fox', which trainval_loc has too",
    ),
    "seen that is not": (
        changed(0, "labels", put(3, 7)),
        r"att_splits.mat: test_seen_loc has images of 1 class.*'gnu'",
    ),
    "no finite attribute": (
        changed(1, "att", put((1, 2), np.nan)),
        r"att_splits.mat: attributes has 1 values that are not finite, the first nan at class 3, entry 2",
    ),
    "no finite feature": (
        changed(0, "features", put((4, 6), np.inf)),
        r"att_splits.mat: features has 1 values that are not finite, the first inf at image 7, entry 5",
    ),
    "validation learnt": (changed(1, "val_loc", put(0, 1)), r"val_loc overlaps train_loc in 1 class.*'ant'"),
    "validation unseen": (changed(1, "val_loc", put(0, 28)), r"att_splits.mat: validation holds 1 class.*'gnu'"),
    "too few": (changed(1, "val_loc", put(slice(None), 14)), r"1 of 5 training classes are for validation.*at least 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said(case, tables, written):
    change, message = REFUSED[case]
    change(tables)
    with pytest.raises(ValueError, match=message):
        read(*written(*tables))


@pytest.mark.parametrize(("where", "name"), [(0, "labels"), (0, "image_files"), (1, "att"), (1, "train_loc")])
def test_a_variable_that_is_missing_is_named(where, name, tables, written):
    del tables[where][name]
    with pytest.raises(ValueError, match=rf"(res101|att_splits).mat has no variable {name}: give the file"):
        read(*written(*tables))


def test_the_two_files_the_wrong_way_round_are_told(tables, written):
    features, splits = written(*tables)
    with pytest.raises(ValueError, match=r"att_splits.mat has no variable features, labels, image_files"):
        read(splits, features)


def test_files_that_cannot_be_read_are_named(tables, written, tmp_path):
    _, splits = written(*tables)
    with pytest.raises(ValueError, match=r"nowhere.mat: no such file"):
        read(str(tmp_path / "nowhere.mat"), splits)
    damaged = tmp_path / "damaged.mat"
    damaged.write_bytes(b"not a matrix at all" * 20)
    with pytest.raises(ValueError, match=r"damaged.mat cannot be read as a MATLAB file"):
        read(str(damaged), splits)
    newer = tmp_path / "newer.mat"
    newer.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x00" * 512)
    with pytest.raises(ValueError, match=r"newer.mat is MATLAB 7.3.*save it again with -v7"):
        read(str(newer), splits)


def test_without_scipy_the_package_to_install_is_named(tables, written, monkeypatch):
    paths, real = written(*tables), builtins.__import__

    def absent(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match="pip install scipy"):
        read(*paths)


def test_another_backbone_s_features_take_the_place_of_the_published(tables, written):
    task = read(*written(*tables))
    other = dataclasses.replace(task, features=torch.rand(28, 4))
    assert isinstance(other, ZeroShotSet)
    assert torch.equal(other.trainval_loc, task.trainval_loc)
    with pytest.raises(ValueError, match=r"att_splits.mat: features has 27 rows, and there are 28 labels"):
        dataclasses.replace(task, features=torch.rand(27, 4))
    with pytest.raises(ValueError, match=r"attributes has 6 rows, and there are 7 class names"):
        dataclasses.replace(task, attributes=torch.rand(6, 3))

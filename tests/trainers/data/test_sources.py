"""Each layout yields its images, labels, names and ids; what is wrong with one is said in a message."""

import struct

import numpy as np
import pytest
import torch

from trainers.data import digits
from trainers.data.digits import Digits
from trainers.data.examples import CorruptError
from trainers.data.folder import Folder
from trainers.data.parquet import Parquet
from trainers.data.shards import INDEX, Shards
from trainers.data.torchvision import Torchvision


def test_digits_keep_their_grey_levels_rows_and_proportions():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    train, test = (Digits().split(name) for name in ("train", "test"))
    assert (len(train), len(test)) == (1257, 540)
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == list(range(1797))
    for examples in (train, test):
        row = int(examples.ids[40])
        assert int(examples.labels[40]) == bunch.target[row]
        assert np.abs(np.asarray(examples.image(40)) / 255 - bunch.images[row] / 16).max() <= 0.5 / 255 + 1e-9
    share = torch.bincount(test.labels) / torch.bincount(torch.from_numpy(bunch.target))
    assert (share - 540 / 1797).abs().max() < 0.01


def test_digits_are_the_same_by_the_library_s_own_reader(monkeypatch):
    straight = digits._table()
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    assert np.array_equal(digits._table(), straight)


def check_layout(source, train, test, name):
    examples = source.split("train")
    assert len(examples) == train
    assert len(source.split("test")) == test
    assert len(examples.ids.unique()) == train
    assert set(examples.ids.tolist()).isdisjoint(source.split("test").ids.tolist())
    assert examples.name(1) == name
    assert len(examples.digest) == 64
    assert examples.digest == type(source)(source.path).split("train").digest != source.split("test").digest


def test_parquet(parquet, make):
    source = Parquet(str(parquet))
    assert source.classes == ("ant", "bee", "cow")
    check_layout(source, 60, 9, "train-00000-of-00002.parquet row 1")
    examples = source.split("train")
    for i in (0, 29, 30, 59, 3):
        assert np.array_equal(np.asarray(examples.image(i)), decoded(make.picture(i)))
        assert int(examples.labels[i]) == i % 3
    assert examples.name(38) == "train-00001-of-00002.parquet row 8"


def test_shards_as_webdataset_writes_them(tars, make):
    source = Shards(str(tars))
    assert source.classes == ("0", "1", "2")
    check_layout(source, 60, 9, "train-0000.tar n00001")
    examples = source.split("train")
    assert examples.starts == [0, 8, 25, 33, 50]
    for i in (0, 7, 8, 59, 30):
        assert np.array_equal(np.asarray(examples.image(i)), decoded(make.picture(i)))
        assert int(examples.labels[i]) == i % 3


def test_the_index_saves_the_scan_until_a_shard_changes(tars, make, monkeypatch):
    before = Shards(str(tars)).split("train")
    assert Shards(str(tars)).write_index() == tars / INDEX
    make.tar(tars / "train-0001.tar", range(8, 40))
    scanned = []
    from trainers.data import shards

    scan = shards.scan
    monkeypatch.setattr(shards, "scan", lambda files, path, label: scanned.append(path) or scan(files, path, label))
    after = Shards(str(tars)).split("train")
    assert scanned == [str(tars / "train-0001.tar")]
    assert len(after) == 75
    assert after.ids[:25].equal(before.ids[:25])
    assert np.array_equal(np.asarray(after.image(40)), decoded(make.picture(25)))


def test_folder(folder, make):
    source = Folder(str(folder))
    assert source.classes == ("ant", "bee", "cow")
    check_layout(source, 24, 6, "train/ant/12.png")
    examples = source.split("train")
    assert np.array_equal(np.asarray(examples.image(1)), decoded(make.picture(12, side=12)))


def test_a_flat_folder_trains_and_has_no_test(folder):
    source = Folder(str(folder / "train"))
    assert source.classes == ("ant", "bee", "cow")
    assert len(source.split("train")) == 24
    with pytest.raises(ValueError, match=r"data.test=N"):
        source.split("test")


def test_torchvision_reads_mnist_files(tmp_path):
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for name, n in (("train", 20), ("t10k", 10)):
        pixels = np.arange(n * 28 * 28, dtype=np.uint32).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + pixels.tobytes())
        labels = np.arange(n, dtype=np.uint8) % 10
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())
    source = Torchvision("MNIST", str(tmp_path))
    assert source.classes[3] == "3 - three"
    assert source.split("train").labels.tolist() == [*range(10), *range(10)]
    assert np.asarray(source.split("test").image(9))[0, 0] == 9 * 28 * 28 % 256
    assert source.split("train").digest != source.split("test").digest


def test_torchvision_mistakes(tmp_path):
    with pytest.raises(ValueError, match=r"'CIFAR11' is no data set of torchvision: nearest CIFAR10"):
        Torchvision("CIFAR11", str(tmp_path)).split("train")
    with pytest.raises(ValueError, match=r"cannot open data.path=.*download=true"):
        Torchvision("CIFAR10", str(tmp_path)).split("train")


@pytest.mark.parametrize("source", [Parquet, Shards, Folder])
def test_a_missing_path_is_named(source, tmp_path):
    with pytest.raises(ValueError, match=r"data.path=.*nowhere does not exist"):
        source(str(tmp_path / "nowhere")).split("train")


def test_no_training_files(parquet):
    for path in parquet.glob("train-*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no files of split train .*test-00000-of-00001.parquet"):
        Parquet(str(parquet)).split("train")


def test_a_missing_column_gives_the_nearest(parquet):
    with pytest.raises(ValueError, match=r"data.source.label='labels' is no column of train-.*nearest label"):
        Parquet(str(parquet), label="labels").split("train")


def test_labels_must_be_integers(parquet, make):
    make.parquet(parquet / "train-00000-of-00002.parquet", [make.picture(0)], ["ant"], named=False)
    with pytest.raises(ValueError, match=r"data.source.label='label' .* holds string, not integers"):
        Parquet(str(parquet)).split("train")


def test_class_names_may_be_given(parquet):
    assert Parquet(str(parquet), class_names=4).classes == ("0", "1", "2", "3")
    assert Parquet(str(parquet), class_names=["x", "y", "z"]).classes == ("x", "y", "z")


def test_a_truncated_tar_is_named(tars):
    path = tars / "train-0002.tar"
    path.write_bytes(path.read_bytes()[:1700])
    with pytest.raises(ValueError, match=r"shard .*train-0002.tar"):
        Shards(str(tars)).split("train")


def test_a_tar_without_labels_is_named(tars):
    with pytest.raises(ValueError, match=r"8 images have no .label \(first: n00000\): set data.source.label"):
        Shards(str(tars), label="label").split("train")


def test_a_corrupt_image_says_why(folder):
    path = folder / "train/ant/12.png"
    path.write_bytes(path.read_bytes()[:60])
    examples = Folder(str(folder)).split("train")
    with pytest.raises(CorruptError, match=r"\w+"):
        examples.image(1)
    assert len(examples) == 24


def decoded(content):
    from trainers.data.examples import decode

    return np.asarray(decode(content))

"""What a data set is made of: read once, and the same wherever it lies."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.retraining import manifest
from pipelines.retraining.manifest import Manifest, from_json, take, to_json
from pipelines.storage import s3
from tests.pipelines.retraining.sets import FOLDER, config, fill, png

CAT = "train/cat/0.png"


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"s3://{request.getfixturevalue('bucket')}" if request.param == "s3" else str(tmp_path)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the local files that a manifest read."""
    names: list[str] = []
    digest = hashlib.file_digest

    def counted(file: Any, algorithm: str) -> Any:
        names.append("/".join(Path(file.name).parts[-3:]))
        return digest(file, algorithm)

    monkeypatch.setattr(manifest.hashlib, "file_digest", counted)
    return names


def later(path: Path, seconds: int = 1) -> None:
    """As if it were written then: two writes may fall into one tick of the file system's clock."""
    at = path.stat().st_mtime_ns + seconds * 10**9
    os.utime(path, ns=(at, at))


def test_a_set_is_its_names_and_bytes_wherever_it_lies(root):
    here, there = fill(f"{root}/here"), fill(f"{root}/there")
    first = take(config(here))
    assert take(config(there)).digest == first.digest
    storage.write(f"{here}/{CAT}", png(FOLDER[CAT]))
    assert take(config(here), first).digest == first.digest
    storage.write(f"{here}/{CAT}", png(77))
    changed = take(config(here))
    storage.write(f"{there}/{CAT}x.png", png(FOLDER[CAT]))
    more = take(config(there))
    storage.remove(f"{there}/{CAT}")
    renamed = take(config(there))
    assert len({each.digest for each in (first, changed, more, renamed)}) == 4
    assert changed.bytes == renamed.bytes == first.bytes < more.bytes


def test_only_what_is_another_file_is_read_again(tmp_path, read):
    cat, dog, touched = (tmp_path / f"train/{name}" for name in ("cat/0.png", "dog/0.png", "dog/1.png"))
    first = take(config(fill(str(tmp_path))))
    assert sorted(read) == sorted(FOLDER)
    read.clear()
    assert take(config(str(tmp_path)), first) is first
    assert not read
    before = cat.stat()
    cat.write_bytes(png(0) + b"more")
    os.utime(cat, ns=(before.st_atime_ns, before.st_mtime_ns))
    dog.write_bytes(png(77))
    for path in (dog, touched):
        later(path)
    second = take(config(str(tmp_path)), first)
    assert sorted(read) == ["train/cat/0.png", "train/dog/0.png", "train/dog/1.png"]
    assert {name for name, file in second.files.items() if file.digest != first.files[name].digest} == {
        "train/cat/0.png",
        "train/dog/0.png",
    }
    assert second.digest == take(config(str(tmp_path))).digest


def test_of_s3_no_image_is_read(bucket, monkeypatch):
    place = fill(f"s3://{bucket}/set")
    monkeypatch.setattr(s3.S3Files, "open", lambda self, path: pytest.fail(f"{path} was opened"))
    first = take(config(place))
    assert {file.digest[:5] for file in first.files.values()} == {"etag:"}
    assert take(config(place), from_json(to_json(first))).digest == first.digest


def test_images_are_counted_by_split_and_class(root):
    found = take(config(fill(root)))
    assert found.images == {"train": {"cat": 3, "dog": 2}, "test": {"cat": 1, "dog": 1}}
    assert (found.total("train"), found.total("test"), found.unread) == (5, 2, "")
    assert found.bytes == sum(len(png(number)) for number in FOLDER.values())
    drawn = take(config(root, test=2))
    assert drawn.images == {"train": {"cat": 3, "dog": 2}}


def test_labels_that_are_gone_are_told_and_looked_at_again(tmp_path):
    for split, labels in (("train", [0, None, 1, None]), ("test", [0, 1, 1, 0])):
        table = pa.table({"image": [png(k) for k in range(4)], "label": pa.array(labels, pa.int64())})
        pq.write_table(table, tmp_path / f"{split}-0.parquet")
    asked = config(str(tmp_path), "parquet.Parquet")
    first = take(asked)
    assert first.unread == "2 of 4 images of split 'train' have no label that names a class"
    assert len(first.files) == 2
    assert take(asked, first) == first
    assert take(asked, first) is not first


def test_other_settings_count_anew_and_read_no_file_again(tmp_path, read):
    first = take(config(fill(str(tmp_path))))
    read.clear()
    drawn = take(config(str(tmp_path), test=2), first)
    assert drawn.images == {"train": first.images["train"]}
    assert (drawn.digest, read) == (first.digest, [])
    moved = config(str(tmp_path.rename(tmp_path.with_name("moved"))), test=2)
    assert take(moved, drawn) is drawn


def test_a_class_in_the_test_split_alone_is_told(tmp_path):
    storage.write(f"{fill(str(tmp_path))}/test/owl/0.png", png(3))
    assert "test/ has classes that training has not: owl" in take(config(str(tmp_path))).unread


def test_a_set_that_is_not_there_is_told(tmp_path):
    found = take(config(str(tmp_path / "absent")))
    assert "absent does not exist" in found.unread
    assert not found.files


def test_a_manifest_goes_there_and_back(tmp_path):
    found = take(config(fill(str(tmp_path))))
    back = from_json(to_json(found))
    assert back == found
    assert take(config(str(tmp_path)), back) is back


@pytest.mark.parametrize("change", ["file", "digest", "no digest", "no files", "files", "list", "words"])
def test_one_that_was_changed_is_refused(tmp_path, change):
    plain = json.loads(to_json(take(config(fill(str(tmp_path))))))
    if change == "file":
        plain["files"][CAT]["digest"] = "0" * 64
    elif change == "digest":
        plain["digest"] = "0" * 64
    elif change.startswith("no "):
        del plain[change[3:]]
    elif change == "files":
        plain["files"][CAT]["colour"] = "red"
    text = {"list": b"[]", "words": b"none"}.get(change, json.dumps(plain).encode())
    with pytest.raises(ValueError, match=r"no manifest|the digest that it says|Expecting value"):
        from_json(text)


def test_what_is_embedded_is_known_by_its_labels():
    asked = config(None, "digits.Digits")
    first = take(asked)
    assert (first.total("train"), first.total("test"), first.unread) == (1257, 540, "")
    assert (first.files, first.bytes) == ({}, 0)
    assert take(asked, first) is first
    fewer = {**first.images, "train": {**first.images["train"], "7": 1}}
    assert Manifest(first.source, {}, fewer).digest != first.digest
    assert Manifest("another", {}, first.images).digest != first.digest

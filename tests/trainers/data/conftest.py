"""Small data sets in every layout, made of random pictures; and batchers over them."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

CLASSES = ["ant", "bee", "cow"]


def picture(seed: int, side: int = 12) -> bytes:
    """A PNG of smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, contents: list[bytes], labels: list, group: int = 7, named: bool = True) -> None:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": CLASSES}}
    table = pa.table({"image": [{"bytes": c, "path": None} for c in contents], "label": labels})
    if named:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """60 training examples in 2 shards of 30, 9 to test."""
    root = tmp_path / "parquet"
    root.mkdir()
    for shard in range(2):
        seeds = range(30 * shard, 30 * shard + 30)
        write_parquet(root / f"train-0000{shard}-of-00002.parquet", [picture(s) for s in seeds], [s % 3 for s in seeds])
    write_parquet(root / "test-00000-of-00001.parquet", [picture(s) for s in range(90, 99)], [0, 1, 2] * 3)
    return root


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """60 training examples in 5 shards of unequal size, 9 to test, written by webdataset itself."""
    root = tmp_path / "tars"
    root.mkdir()
    ends = [0, 8, 25, 33, 50, 60]
    for shard in range(5):
        write_tar(root / f"train-{shard:04}.tar", range(ends[shard], ends[shard + 1]))
    write_tar(root / "val-0000.tar", range(90, 99))
    return root


def write_tar(path: Path, seeds: range) -> None:
    with webdataset.TarWriter(str(path)) as writer:
        for seed in seeds:
            writer.write({"__key__": f"n{seed:05}", "png": picture(seed), "cls": seed % 3, "json": {"seed": seed}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 training pictures and 6 to test, in folders by class, of unequal size."""
    root = tmp_path / "folder"
    for split, seeds in (("train", range(24)), ("val", range(24, 30))):
        for seed in seeds:
            target = root / split / CLASSES[seed % 3] / f"{seed}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture(seed, side=12 + seed % 4))
    return root


@pytest.fixture
def make():
    """The builders, for tests that need a set of their own."""
    return SimpleNamespace(picture=picture, parquet=write_parquet, tar=write_tar)

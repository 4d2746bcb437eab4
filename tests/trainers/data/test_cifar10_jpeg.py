"""The real CIFAR-10 in JPEG, where it is at hand."""

import os
from pathlib import Path

import pytest

from trainers.data.parquet import Parquet

SHARED = Path(os.environ.get("HOLDFAST_SHARED", Path(__file__).parents[3].parent / "shared"))
CIFAR10 = SHARED / "data/cifar10-jpeg"


@pytest.mark.skipif(not CIFAR10.exists(), reason=f"no cifar10-jpeg in {SHARED}; set HOLDFAST_SHARED")
def test_it_is_all_there():
    source = Parquet(str(CIFAR10))
    train, test = source.split("train"), source.split("test")
    assert source.classes[:3] == ("airplane", "automobile", "bird")
    assert (len(train), len(test)) == (50_000, 10_000)
    assert train.labels.bincount().tolist() == [5000] * 10
    assert len(train.ids.unique()) == 50_000
    assert train.image(49_999).size == (32, 32)

"""How the shuffle window of a lane and the memory for row groups go together."""

import io
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainers.data.parquet import Parquet
from trainers.data.streaming import Streaming


def noise_picture(seed: int) -> bytes:
    """A PNG of 12 KB, which no compression makes smaller."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("buffer", "again"), [(40, False), (200, True)])
def test_a_window_that_fits_the_cache_is_read_once(buffer, again, tmp_path, make, monkeypatch):
    """One megabyte holds 85 of the 200 images, in row groups of 10."""
    labels = [i % 3 for i in range(200)]
    for shard in range(2):
        contents = [noise_picture(i) for i in range(100 * shard, 100 * shard + 100)]
        make.parquet(tmp_path / f"train-{shard}.parquet", contents, labels[100 * shard :][:100], group=10)
    make.parquet(tmp_path / "test-0.parquet", [noise_picture(0)], [0])
    data = Streaming(Parquet(str(tmp_path), cache_mb=1), 20, (3, 8, 8), lanes=1, buffer=buffer, loaders=0)

    read: Counter[tuple[str, int]] = Counter()
    original = pq.ParquetFile.read_row_group

    def counted(self, group, *args, **kwargs):
        read[id(self), group] += 1
        return original(self, group, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    assert sum(len(batch.x) for batch in data.train(0)) == 200
    assert len(read) == 20
    assert (max(read.values()) > 1) == again

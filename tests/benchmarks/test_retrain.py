"""The benchmark of a look times whole looks that find nothing to do, and stops at one that finds something."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import retrain


def test_a_look_at_what_changed_is_not_timed(tmp_path):
    retrain.images(tmp_path / "images", 40)
    retrain.champion(str(tmp_path))
    assert retrain.timed(str(tmp_path), *retrain.LOOK) > 0
    (tmp_path / "images" / "train" / "class1" / "new.png").write_bytes(b"new")
    with pytest.raises(RuntimeError, match=r"ended with 3:[^$]*cannot be read"):
        retrain.timed(str(tmp_path), *retrain.LOOK)

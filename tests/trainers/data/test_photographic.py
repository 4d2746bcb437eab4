import random

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.data.photographic import Photographic

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
SIZE, MEAN, STD = (3, 24, 24), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)


def test_a_seed_fixes_the_result_and_global_generators_stay():
    transform = Photographic(erasing=1.0).training(SIZE, MEAN, STD)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    draws = [transform(IMAGE, seed) for seed in (1, 2, 1)]
    assert draws[0].equal(draws[2])
    assert not draws[0].equal(draws[1])
    assert draws[0].shape == SIZE
    assert draws[0].dtype == torch.uint8
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.get_rng_state().equal(states[2])


def test_every_seed_survives_randaugment():
    transform = Photographic(auto_augment="rand-m10-n4-mstd0.5-inc1", erasing=0).training(SIZE, MEAN, STD)
    assert len({transform(IMAGE, seed).sum().item() for seed in range(150)}) > 140


def test_erasing_changes_a_box_and_nothing_else():
    settings = {"auto_augment": None, "color_jitter": 0.0, "interpolation": "bilinear"}
    plain = Photographic(**settings, erasing=0).training(SIZE, MEAN, STD)
    erased = Photographic(**settings, erasing=1, erasing_mode="const").training(SIZE, MEAN, STD)
    for seed in range(10):
        before, after = plain(IMAGE, seed), erased(IMAGE, seed)
        hole = (after == (torch.tensor(MEAN)[:, None, None] * 255).round().to(torch.uint8)).all(0)
        rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
        box = torch.zeros_like(hole)
        box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert ((before == after).all(0) | hole).all()
        assert 0.01 < box.float().mean() < 0.5


def test_evaluation_resizes_and_crops_the_centre():
    image = Image.new("RGB", (60, 40), "black")
    image.paste((255, 255, 255), (10, 0, 50, 40))
    x = Photographic(crop_pct=1.0).evaluation((3, 20, 20))(image)
    assert x.shape == (3, 20, 20)
    assert x[:, 1:-1, 1:-1].min() == 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_pct": 0}, r"data.transform.crop_pct=0 must be in \(0, 1\]"),
        ({"interpolation": "cubic"}, r"interpolation='cubic' must be one of bicubic"),
        ({"erasing": -1}, r"data.transform.erasing=-1 must be a probability"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ValueError, match=message):
        Photographic(**settings)


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match=r"data.transform.auto_augment='nonsense' is no timm policy"):
        Photographic(auto_augment="nonsense").training(SIZE, MEAN, STD)

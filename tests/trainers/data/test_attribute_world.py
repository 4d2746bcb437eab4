"""The made world: its design, what can be seen of each attribute, and what is keyed."""

import numpy as np
import pytest
import torch

from trainers.data import checks
from trainers.data.attribute_world import ATTRIBUTES, AttributeWorld
from trainers.data.held_out import HeldOut
from trainers.data.resident import Resident

WORLD = AttributeWorld(train=3, test=2)


def pictures(examples) -> np.ndarray:
    return np.stack([np.asarray(examples.image(i)) for i in range(len(examples))])


def test_seen_and_unseen_are_different_combinations_of_the_same_attributes():
    s = WORLD.attributes
    assert torch.equal(s.abs(), torch.ones(64, 6).double())
    assert len(s.unique(dim=0)) == 64
    for part, n in ((WORLD.seen, 48), (WORLD.unseen, 16)):
        assert torch.equal(s[part].T @ s[part], n * torch.eye(6).double())
        assert torch.equal(s[part].sum(0), torch.zeros(6).double())
    assert torch.equal(torch.cat([WORLD.seen, WORLD.unseen]), torch.arange(64))


def test_names_say_the_attributes():
    assert len(set(WORLD.all_classes)) == 64
    assert WORLD.classes == WORLD.all_classes[:48]
    for name, row in zip(WORLD.all_classes, WORLD.attributes.tolist(), strict=True):
        assert name == "-".join(words[0] if sign > 0 else words[1] for words, sign in zip(ATTRIBUTES, row, strict=True))


def test_splits_have_their_classes_and_ids_of_their_own():
    splits = {name: WORLD.split(name) for name in ("train", "test", "unseen")}
    assert {name: len(examples) for name, examples in splits.items()} == {"train": 144, "test": 96, "unseen": 32}
    ids = torch.cat([examples.ids for examples in splits.values()])
    assert len(ids.unique()) == len(ids)
    for name, examples in splits.items():
        counts = examples.labels.bincount(minlength=64)
        assert torch.equal(counts.nonzero()[:, 0], WORLD.unseen if name == "unseen" else WORLD.seen)
        assert len(counts[counts > 0].unique()) == 1
        checks.labels_in_range(examples, name, WORLD.all_classes if name == "unseen" else WORLD.classes)
    assert splits["unseen"].name(1) == f"{WORLD.all_classes[48]} unseen 1"
    assert len({examples.digest for examples in splits.values()}) == 3


def test_a_picture_is_the_same_whatever_lies_beside_it():
    few, many = WORLD.split("train"), AttributeWorld(train=5, test=7).split("train")
    places = {i: row for row, i in enumerate(many.ids.tolist())}
    for row in (0, 1, 50, 143):
        assert np.array_equal(few.image(row), many.image(places[int(few.ids[row])]))
    assert few.digest == AttributeWorld(train=3, test=9).split("train").digest
    assert few.digest != AttributeWorld(train=3, seed=1).split("train").digest


def channels(**settings) -> dict[str, np.ndarray]:
    """Every class's mean picture, without noise, as ``(64, side, side, 3)`` in [0, 1]."""
    world = AttributeWorld(train=30, test=30, noise=0, **settings)
    x = np.concatenate([pictures(world.split("train")), pictures(world.split("unseen"))]) / 255
    return x.reshape(64, 30, *x.shape[1:]).mean(1)


@pytest.mark.parametrize("side", [16, 32])
def test_each_attribute_shows_where_it_should(side):
    """A statistic of the mean picture of a class that one attribute moves, in every class and its twin without it."""
    mean = channels(side=side)
    s = WORLD.attributes.numpy()
    row = np.arange(side)
    rim = side // 16
    inner = mean[:, rim:-rim, rim:-rim]
    coloured = np.abs(inner[..., 0] - inner[..., 2])
    shown = {
        0: inner[..., 0].mean((1, 2)) - inner[..., 2].mean((1, 2)),
        1: coloured.sum((1, 2)),
        4: -(coloured.sum(2) * row[rim:-rim]).sum(1) / coloured.sum((1, 2)),
        5: mean[:, 0].mean((1, 2)) - inner.mean((1, 2, 3)),
    }
    for attribute, values in shown.items():
        others = np.delete(s, attribute, 1)
        for k in range(64):
            if s[k, attribute] > 0:
                (twin,) = [j for j in range(64) if (others[j] == others[k]).all() and j != k]
                assert values[k] > values[twin], (ATTRIBUTES[attribute], WORLD.all_classes[k])


def test_discs_are_not_squares_and_stripes_not_plain_but_areas_are_alike():
    """Without noise, of one example's key: pictures of twins differ, and by no more than 3 % in the area coloured."""
    from trainers.data.attribute_world import _pictures

    keys = torch.arange(200)

    def drawn(*signs: float) -> np.ndarray:
        return _pictures(torch.tensor([signs] * 200), keys, 32, 0.0).astype(float)

    disc, square, striped = drawn(1, 1, 1, -1, 1, -1), drawn(1, 1, -1, -1, 1, -1), drawn(1, 1, 1, 1, 1, -1)
    areas = [np.abs(x[..., 0] - x[..., 2]).sum((1, 2)) for x in (disc, square, striped)]
    assert np.abs(areas[0] / areas[1] - 1).mean() < 0.03
    assert (areas[2] < 0.8 * areas[0]).all()
    assert (np.abs(disc - square).max((1, 2, 3)) > 20).all()


def test_training_and_judging_read_it_like_any_source():
    data = Resident(WORLD, 12)
    batch = next(iter(data.train(0)))
    assert batch.x.shape == (12, 3, 16, 16)
    assert 0 <= batch.x.min() < batch.x.max() <= 1
    exam = HeldOut(WORLD.beyond)
    assert exam.classes == WORLD.all_classes
    assert torch.equal(exam.labels.unique(), WORLD.unseen)
    assert set(exam.ids.tolist()).isdisjoint(HeldOut(WORLD).ids.tolist())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 8}, r"data.source.side=8 must be at least 16"),
        ({"train": 0}, r"data.source.train=0 examples"),
        ({"test": 1 << 21}, r"data.source.test=2097152 examples"),
        ({"noise": 0.9}, r"data.source.noise=0.9 must be in \[0, 0.5\]"),
        ({"noise": -0.1}, r"data.source.noise=-0.1"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AttributeWorld(**settings)


def test_splits_it_has_not_are_refused():
    with pytest.raises(ValueError, match=r"no split 'val': train, test, unseen"):
        WORLD.split("val")
    with pytest.raises(ValueError, match=r"no split 'train': test"):
        WORLD.beyond.split("train")

"""Pasted digits: boxes hold exactly the digit's ink, and every draw belongs to its example."""

import numpy as np
import pytest
import torch

from trainers.data.digits import Digits
from trainers.data.pasted_digits import PastedDigits
from trainers.data.resident import Resident

BARE = PastedDigits(clutter=0, pieces=0)


def pixels(examples):
    return np.stack([np.asarray(examples.image(i)) for i in range(len(examples))])


@pytest.mark.parametrize("settings", [BARE, PastedDigits(canvas=50, scale=3, clutter=0, pieces=0)])
def test_without_clutter_the_box_is_around_all_that_is_not_black(settings):
    examples = settings.split("test")
    for i, image in enumerate(pixels(examples)):
        rows, columns = image.nonzero()
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert examples.boxes[int(examples.ids[i])].tolist() == [tight]


def test_the_digit_in_its_box_is_the_digit_enlarged():
    examples, digits = BARE.split("test"), Digits().split("test")
    for i in (0, 100, 539):
        left, top, right, bottom = (int(v) for v in examples.boxes[int(examples.ids[i])][0])
        ink = np.asarray(digits.image(i)).repeat(2, 0).repeat(2, 1)
        rows, columns = ink.nonzero()
        inside = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert np.array_equal(np.asarray(examples.image(i))[top:bottom, left:right], inside)


def test_clutter_moves_no_digit_and_darkens_none():
    bare, cluttered = BARE.split("test"), PastedDigits().split("test")
    assert all(torch.equal(box, cluttered.boxes[key]) for key, box in bare.boxes.items())
    before, after = pixels(bare), pixels(cluttered)
    assert (after >= before).all()
    assert (after > before).any((1, 2)).all()


def test_the_noise_is_uniform_up_to_the_clutter_and_pieces_are_brighter():
    noisy = pixels(PastedDigits(clutter=0.25, pieces=0).split("test"))[pixels(BARE.split("test")) == 0]
    assert noisy.max() == round(0.25 * 255)
    assert noisy.mean() == pytest.approx(0.125 * 255, abs=0.2)
    pieces = pixels(PastedDigits(clutter=0, pieces=6).split("test"))
    assert ((pieces > 0).sum((1, 2)) > (pixels(BARE.split("test")) > 0).sum((1, 2))).mean() > 0.95


def test_ids_labels_and_splits_are_those_of_the_digits():
    for name in ("train", "test"):
        ours, theirs = PastedDigits().split(name), Digits().split(name)
        assert torch.equal(ours.ids, theirs.ids)
        assert torch.equal(ours.labels, theirs.labels)
    assert PastedDigits().classes == Digits().classes
    with pytest.raises(ValueError, match="no split 'val'"):
        PastedDigits().split("val")


def test_the_seed_places_and_the_same_seed_places_the_same():
    first, again, other = (PastedDigits(seed=seed).split("test") for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    assert np.array_equal(pixels(first), pixels(again))
    corners = torch.cat(list(BARE.split("test").boxes.values()))[:, :2]
    assert corners.min() == 0
    assert len(corners.unique(dim=0)) > 150  # of the 17 x 17 places, nearly 250 can be expected of 540 draws


def test_a_batcher_takes_them_as_any_source():
    batch = next(iter(Resident(PastedDigits(), batch_size=64).train(0)))
    assert batch.x.shape == (64, 1, 32, 32)
    examples = PastedDigits().split("train")
    assert set(batch.keys.tolist()) <= set(examples.boxes)
    row = int((examples.ids == batch.keys[5]).nonzero())
    assert np.array_equal((batch.x[5, 0] * 255).round().byte().numpy(), np.asarray(examples.image(row)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canvas": 15}, "canvas=15 is smaller than a digit of 16 pixels: enlarge it, or lower data.source.scale=2"),
        ({"scale": 0}, "scale"),
        ({"pieces": -1}, "pieces"),
        ({"clutter": 1.5}, r"clutter=1.5 is a grey level: set it in \[0, 1\]"),
    ],
)
def test_settings_out_of_their_range(settings, message):
    with pytest.raises(ValueError, match=message):
        PastedDigits(**settings)

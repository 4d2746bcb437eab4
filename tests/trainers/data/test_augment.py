import pytest
import torch
import torch.nn.functional as F

from trainers import noise
from trainers.data.augment import Augment

IMAGES = torch.randint(0, 256, (40, 3, 9, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
ROWS = torch.arange(40)
KEYS = noise.stream(ROWS, 3)
MEAN = (0.1, 0.2, 0.3)


def test_without_anything_pixels_are_bytes_over_255():
    assert Augment(flip=0, shift=0)(IMAGES, ROWS, KEYS, MEAN).equal(IMAGES.float() / 255)


def test_flip_one_mirrors_all_and_half_mirrors_about_half():
    assert Augment(flip=1, shift=0)(IMAGES, ROWS, KEYS, MEAN).equal(IMAGES.flip(3).float() / 255)
    x = Augment(flip=0.5, shift=0)(IMAGES, ROWS, KEYS, MEAN)
    flipped = [bool(a.equal(b)) for a, b in zip(x, IMAGES.flip(3).float() / 255, strict=True)]
    assert 10 < sum(flipped) < 30


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_shift_is_pad_and_crop(padding, mode):
    x = Augment(flip=0, shift=2, padding=padding)(IMAGES, ROWS, KEYS, MEAN)
    padded = F.pad(IMAGES.float() / 255, (2, 2, 2, 2), mode=mode)
    crops = {(r, c): padded[:, :, r : r + 9, c : c + 9] for r in range(5) for c in range(5)}
    seen = set()
    for i in range(len(x)):
        match = [place for place, crop in crops.items() if crop[i].equal(x[i])]
        assert len(match) == 1
        seen.add(match[0])
    assert len(seen) > 12


def test_cutout_fills_one_square_with_the_mean():
    x = Augment(flip=0, shift=0, cutout=3)(IMAGES, ROWS, KEYS, MEAN)
    hole = (x == torch.tensor(MEAN)[:, None, None]).all(1)
    assert ((x == IMAGES.float() / 255) | hole[:, None]).all()
    assert hole.flatten(1).sum(1).max() == 9
    assert hole.flatten(1).sum(1).min() >= 4
    assert hole.any(0).float().mean() > 0.9


def test_an_example_is_augmented_the_same_in_any_batch():
    augment = Augment(flip=0.5, shift=3, cutout=2)
    whole = augment(IMAGES, ROWS, KEYS, MEAN)
    some = torch.tensor([7, 3, 31])
    assert augment(IMAGES, some, KEYS[some], MEAN).equal(whole[some])
    assert not augment(IMAGES, ROWS, noise.stream(KEYS, 1), MEAN).equal(whole)


def test_mistakes():
    with pytest.raises(ValueError, match=r"data.augment.flip=2 must be a probability"):
        Augment(flip=2)
    with pytest.raises(ValueError, match=r"data.augment.shift=-1 pixels"):
        Augment(shift=-1)
    with pytest.raises(ValueError, match=r"data.augment.cutout=9 would leave nothing of 8-pixel images"):
        Augment(cutout=9, shift=0).check((1, 8, 8))

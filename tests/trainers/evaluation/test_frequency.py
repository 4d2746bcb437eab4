"""The low-pass against waves of known frequency, and accuracy at its ends."""

import math

import pytest
import torch
from torch import nn

from trainers.evaluation.accuracy import CleanAccuracy
from trainers.evaluation.frequency import LowPassAccuracy, low_pass, octaves
from trainers.types import Batch


def wave(u, v, height=12, width=10):
    """``0.5 + 0.4 cos(2π (v·row/H + u·column/W) + 1)``, one channel."""
    rows, columns = torch.arange(height).double()[:, None], torch.arange(width).double()[None]
    return (0.5 + 0.4 * (2 * math.pi * (v * rows / height + u * columns / width) + 1).cos())[None, None]


@pytest.mark.parametrize(("u", "v"), [(1, 0), (0, 2), (3, 4), (-3, 4), (4, -1), (5, 0), (0, 6)])
def test_a_wave_passes_from_its_own_frequency_on(u, v):
    x, frequency = wave(u, v), math.hypot(u, v)
    torch.testing.assert_close(low_pass(x, frequency), x)
    mean = x.mean().expand_as(x)
    torch.testing.assert_close(low_pass(x, frequency - 1e-6), mean)


def test_a_sum_of_waves_loses_the_fast_one():
    slow, fast = wave(1, 1), wave(4, 2)
    torch.testing.assert_close(low_pass((slow + fast) / 2, 3), (slow + 0.5) / 2)


@pytest.mark.parametrize("radius", [0, 0.5, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_image_is_unchanged(radius, dtype):
    x = torch.tensor([0.0, 0.3, 1.0], dtype=dtype).reshape(3, 1, 1, 1).expand(3, 2, 7, 8)
    torch.testing.assert_close(low_pass(x, radius), x.contiguous())


def test_full_radius_is_the_image_itself_and_less_is_not(images):
    full = math.hypot(3, 3)
    assert low_pass(images, full) is images
    assert not torch.allclose(low_pass(images, full - 1e-3), images)


def test_images_stay_images():
    edge = torch.zeros(1, 3, 16, 16, dtype=torch.float32)
    edge[..., 8:] = 1
    passed = low_pass(edge, 4)
    assert passed.dtype == torch.float32
    assert passed.min() == 0
    assert passed.max() == 1
    assert low_pass(edge.half(), 4).dtype == torch.float16


def test_each_channel_passes_by_itself(images):
    one_by_one = torch.cat([low_pass(images[:, c : c + 1], 2) for c in range(3)], 1)
    torch.testing.assert_close(low_pass(images, 2), one_by_one)


class Stripes(nn.Module):
    """Tells whether even or odd columns are brighter: the highest frequency of the images, and no other."""

    def forward(self, x):
        score = x[..., ::2].flatten(1).sum(1) - x[..., 1::2].flatten(1).sum(1)
        return torch.stack([score, -score], 1)


def test_accuracy_at_full_radius_is_the_clean_one_and_at_none_that_of_grey_images(images, keys):
    model = Stripes()
    labels = model(images).argmax(1)
    assert len(labels.unique()) == 2
    labels[2] = 1 - labels[2]
    batches = [Batch(images[:3], labels[:3], keys[:3]), Batch(images[3:], labels[3:], keys[3:])]
    found = dict(LowPassAccuracy((5, 2, 0))(model, batches))
    assert list(found) == ["low_pass_accuracy_5", "low_pass_accuracy_2", "low_pass_accuracy_0"]
    assert found["low_pass_accuracy_5"] == dict(CleanAccuracy()(model, batches))["clean_accuracy"] == 7 / 8
    grey = images.mean((2, 3), keepdim=True).expand_as(images)
    expected = (model(grey).argmax(1) == labels).double().mean().item()
    assert expected < 7 / 8, "the images must matter for this test to say anything"
    assert found["low_pass_accuracy_0"] == expected
    ids, rows = LowPassAccuracy((5, 2)).values(model, batches)
    assert torch.equal(ids, keys)
    assert torch.equal(rows[:, 1] == 1, model(low_pass(images, 2)).argmax(1) == labels)


def test_octaves_go_from_everything_to_one():
    assert octaves(224, 224) == (159, 112, 56, 28, 14, 7, 3, 1)
    assert octaves(8, 8) == (6, 4, 2, 1)
    for shape in ((8, 8), (7, 12), (1, 1), (2, 2)):
        x = torch.rand(1, 1, *shape)
        assert low_pass(x, octaves(*shape)[0]) is x


def test_radii_that_cannot_be_are_refused(small_net):
    for bad in ((), (4, -1)):
        with pytest.raises(ValueError, match=r"radii=.*from 0 up"):
            LowPassAccuracy(bad)
    with pytest.raises(ValueError, match="no examples"):
        dict(LowPassAccuracy((4,))(small_net(), []))

"""Edge correlation on gradients whose correlation is known."""

import pytest
import torch
from torch import nn

from trainers.edges import EdgeEnergy
from trainers.evaluation.alignment import EdgeCorrelation, pearson
from trainers.types import Batch


def signed(x):
    """A sign for every entry of ``x``."""
    return torch.where(x > 0.5, 1.0, -1.0).to(x)


def test_a_gradient_as_large_as_the_edges_is_perfectly_aligned(images):
    gradient = signed(images) * EdgeEnergy()(images) * torch.tensor([0.2, 0.7, 0.1]).double().reshape(1, 3, 1, 1)
    torch.testing.assert_close(EdgeCorrelation().correlation(gradient, images), torch.ones(8).double())


def test_one_as_large_as_their_inverse_is_perfectly_opposed_and_any_power_is_as_good(images):
    edges = EdgeEnergy()(images)
    for power in (-1.0, 0.5, 2.0):
        found = EdgeCorrelation().correlation(signed(images) * edges**power, images)
        torch.testing.assert_close(found, torch.full((8,), 1.0 if power > 0 else -1.0).double())


@pytest.mark.parametrize("scale", [1e-30, 10.0, 1e30])
def test_the_scale_of_the_gradient_does_not_matter(images, scale):
    gradient = (images.roll(1, 0) - 0.5).float()
    gradient[:, :, 2, 2] = 0
    expected = EdgeCorrelation().correlation(gradient, images)
    assert expected.abs().max() < 0.9
    torch.testing.assert_close(EdgeCorrelation().correlation(gradient * scale, images), expected, rtol=1e-5, atol=1e-6)


def test_a_pixel_without_a_gradient_counts_as_the_floor(images):
    gradient = signed(images) * EdgeEnergy()(images)
    without, faint = gradient.clone(), gradient.clone()
    without[:, :, 1, 1] = 0
    faint[:, :, 1, 1] = 1e-6 * without.abs().sum(1).flatten(1).amax(1)[:, None] / 3
    probe = EdgeCorrelation()
    assert probe.correlation(without, images).isfinite().all()
    torch.testing.assert_close(probe.correlation(without, images), probe.correlation(faint, images))


class Blurred(nn.Module):
    """The loss of class 0 depends on each pixel as much as the edges of ``pattern`` do there."""

    def __init__(self, pattern):
        super().__init__()
        self.pattern = nn.Parameter(pattern)

    def forward(self, x):
        score = (x * self.pattern).flatten(1).sum(1)
        return torch.stack([score, -score], 1)


def test_the_probe_is_the_mean_of_images_that_have_a_correlation(images, keys):
    x = images.clone()
    x[5] = 0.5
    model = Blurred(EdgeEnergy()(x[2:3]))
    labels = torch.zeros(8, dtype=torch.int64)
    batches = [Batch(x[:3], labels[:3], keys[:3]), Batch(x[3:], labels[3:], keys[3:])]
    probe = EdgeCorrelation()
    ids, rows = probe.values(model, batches)
    each, has = rows[:, 0], torch.arange(8) != 5
    assert torch.equal(ids, keys)
    assert each[2] == pytest.approx(1.0)
    assert torch.equal(~each.isnan(), has), "a grey image has no edges"
    found = dict(probe(model, batches))
    assert found["edge_correlation_defined"] == 7 / 8
    assert found["edge_correlation"] == pytest.approx(each[has].mean().item())
    half = (found["edge_correlation_high"] - found["edge_correlation_low"]) / 2
    assert half == pytest.approx(1.959964 * each[has].std().item() / 7**0.5, rel=1e-5)
    assert all(p.requires_grad for p in model.parameters())


def test_images_of_which_none_has_a_correlation_are_refused(small_net, labels, keys):
    grey = torch.full((8, 3, 6, 6), 0.5).double()
    with pytest.raises(ValueError, match="edge correlation is undefined on every one of 8 images"):
        dict(EdgeCorrelation()(small_net(), [Batch(grey, labels, keys)]))


def test_pearson_is_that_of_torch(images):
    a, b = images.flatten(1), images.flip(0).flatten(1).exp()
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)]
    torch.testing.assert_close(pearson(a, b), torch.stack(expected))


@pytest.mark.parametrize("setting", ["floor", "gradient_floor"])
def test_floors_that_cannot_be_are_refused(setting):
    with pytest.raises(ValueError, match=rf"{setting}=0 must be.*such as 1e-"):
        EdgeCorrelation(**{setting: 0.0})

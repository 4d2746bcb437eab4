"""Local linearity on losses whose curvature is known."""

import math

import pytest
import torch
from torch import nn

from trainers import losses
from trainers.evaluation.linearity import LocalLinearity
from trainers.threat import L2, Linf
from trainers.types import Batch


class Quadratic(nn.Module):
    """The one logit ``curve/2 · ||x||² + Σ x``."""

    def __init__(self, curve):
        super().__init__()
        self.curve = curve

    def forward(self, x):
        x = x.flatten(1)
        return (self.curve / 2 * x.square() + x).sum(1, keepdim=True)


def only(logits):
    return logits[:, 0]


@pytest.mark.parametrize("threat", [Linf(4 / 255), Linf(0.3), L2(2.0)])
def test_a_linear_loss_has_no_error(images, keys, threat):
    errors = LocalLinearity(threat).measure(Quadratic(0.0), images, only, keys)
    assert errors.max() < 1e-26


@pytest.mark.parametrize("threat", [Linf(0.3), L2(2.0)])
def test_a_quadratic_loss_has_the_error_of_its_curvature(images, keys, threat):
    probe = LocalLinearity(threat, seed=4)
    a, b, t = probe.points(images, keys)
    expected = (t * (1 - t) / 2 * 6.0 * (a - b).flatten(1).square().sum(1)).square()
    torch.testing.assert_close(probe.measure(Quadratic(6.0), images, only, keys), expected)


def test_the_expected_error_of_a_quadratic_loss():
    """``E = (curve/2)² · E[t²(1-t)²] · E||a-b||⁴`` with ``E[t²(1-t)²] = 1/30``, and of D differences of two uniforms,
    ``E||a-b||⁴ = D · 16/15 eps⁴ + D(D-1) · (2/3 eps²)²``."""
    n, d, eps = 40_000, 4, 0.25
    errors = LocalLinearity(Linf(eps)).measure(Quadratic(2.0), torch.zeros(n, 1, 2, 2).double(), only, torch.arange(n))
    expected = (d * 16 / 15 + d * (d - 1) * 4 / 9) * eps**4 / 30
    assert abs(errors.mean().item() - expected) < 5 * errors.std().item() / math.sqrt(n)


def test_points_are_in_the_ball_independent_and_keyed(images, keys):
    probe = LocalLinearity(Linf(0.1))
    a, b, t = probe.points(images, keys)
    for point in (a, b):
        assert (point - images).abs().max() <= 0.1
        assert (point - images).abs().max() > 0.09
    assert a.min() < 0, "not clipped: some of these images' pixels are 0"
    correlation = torch.corrcoef(torch.stack([(a - images).flatten(), (b - images).flatten()]))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(images.numel())
    assert len(t.unique()) == 8
    again = probe.points(images[3:5].flip(0), keys[3:5].flip(0))
    for part, whole in zip(again, (a, b, t), strict=True):
        assert torch.equal(part, whole[3:5].flip(0))
    assert not torch.equal(LocalLinearity(Linf(0.1), seed=1).points(images, keys)[0], a)


def test_the_probe_is_the_mean_of_the_cross_entropys_errors_and_leaves_the_model_alone(small_net, images, labels, keys):
    model = small_net(dropout=0.5).train()
    probe = LocalLinearity(Linf(0.1))
    batches = [Batch(images[:3], labels[:3], keys[:3]), Batch(images[3:], labels[3:], keys[3:])]
    found = dict(probe(model, batches))
    assert all(module.training for module in model.modules())
    a, b, t = probe.points(images, keys)
    model.eval()
    at = [
        losses.cross_entropy(model(x), labels)
        for x in (a, b, (1 - t)[:, None, None, None] * a + t[:, None, None, None] * b)
    ]
    expected = (at[2] - (1 - t) * at[0] - t * at[1]).square().mean().item()
    assert expected > 1e-9
    assert found == pytest.approx({"local_linearity_error": expected}, rel=1e-6)


def test_no_examples_are_refused(small_net):
    with pytest.raises(ValueError, match="no examples to measure local linearity on"):
        dict(LocalLinearity(Linf(0.1))(small_net(), []))

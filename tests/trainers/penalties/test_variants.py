"""Channel weights, threshold and square of the gradient norm: what each is a limit of."""

import pytest
import torch

from trainers.penalties.channel_weighted import ChannelWeighted
from trainers.penalties.gradient_norm import GradientNorm
from trainers.penalties.squared_norm import SquaredNorm
from trainers.penalties.thresholded import Thresholded
from trainers.threat import L2, Linf

THREATS = [Linf(0.1), L2(0.4)]
GRADIENT = torch.randn(8, 3, 4, 4, dtype=torch.float64)
X = torch.zeros_like(GRADIENT)


@pytest.mark.parametrize("threat", THREATS)
def test_equal_weights_are_none(threat):
    weighted = ChannelWeighted(threat, (1, 1, 1))
    torch.testing.assert_close(weighted(GRADIENT, X), GradientNorm(threat)(GRADIENT, X))


def test_green_counts_double_under_linf():
    red, green, blue = (GRADIENT[:, c].flatten(1).abs().sum(1) for c in range(3))
    torch.testing.assert_close(ChannelWeighted(Linf(0.1))(GRADIENT, X), 0.1 * (red + 2 * green + blue))


def test_a_configs_list_is_a_value_too():
    assert hash(ChannelWeighted(Linf(0.1), [1, 2, 1])) == hash(ChannelWeighted(Linf(0.1)))


@pytest.mark.parametrize("threat", THREATS)
def test_below_the_threshold_nothing_costs_and_above_it_the_rest(threat):
    norm = GradientNorm(threat)
    cost = norm(GRADIENT, X)
    middle = cost.median().item()
    torch.testing.assert_close(Thresholded(norm, 0.0)(GRADIENT, X), cost)
    torch.testing.assert_close(Thresholded(norm, middle)(GRADIENT, X), (cost - middle).clamp_min(0))
    gradient = GRADIENT.clone().requires_grad_()
    (slope,) = torch.autograd.grad(Thresholded(norm, middle)(gradient, X).sum(), gradient)
    assert ((slope.flatten(1) != 0).any(1) == (cost > middle)).all()


@pytest.mark.parametrize("threat", THREATS)
def test_the_square_is_half_the_norms_and_flat_at_zero(threat):
    torch.testing.assert_close(SquaredNorm(threat)(GRADIENT, X), GradientNorm(threat)(GRADIENT, X) ** 2 / 2)
    gradient = torch.zeros_like(GRADIENT, requires_grad=True)
    (slope,) = torch.autograd.grad(SquaredNorm(threat)(gradient, X).sum(), gradient)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("weights", [(), (1, -1, 1), (1, float("nan"), 1)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match=r"penalty\.weights="):
        ChannelWeighted(Linf(0.1), weights)


def test_weights_for_other_images_are_refused():
    with pytest.raises(ValueError, match=r"penalty\.weights=\[1\.0, 2\.0\] are 2, but the images have 3 channels"):
        ChannelWeighted(Linf(0.1), (1, 2))(GRADIENT, X)


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match=r"penalty\.threshold=-1"):
        Thresholded(GradientNorm(Linf(0.1)), -1.0)

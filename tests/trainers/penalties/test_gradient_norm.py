"""The gradient-norm penalty: the dual norm of the threat, and its meaning."""

import pytest
import torch

from trainers.penalties.gradient_norm import GradientNorm
from trainers.threat import L2, Linf

GRADIENT = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64).reshape(3, 1, 1, 2)


def test_linf_costs_eps_times_the_l1_norm():
    expected = torch.tensor([0.7, 0.0, 0.2], dtype=torch.float64)
    torch.testing.assert_close(GradientNorm(Linf(0.1))(GRADIENT, torch.zeros_like(GRADIENT)), expected)


def test_l2_costs_eps_times_the_l2_norm():
    expected = torch.tensor([0.5, 0.0, 0.1 * 2**0.5], dtype=torch.float64)
    torch.testing.assert_close(GradientNorm(L2(0.1))(GRADIENT, torch.zeros_like(GRADIENT)), expected)


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.01)])
def test_it_is_what_the_worst_perturbation_adds_to_a_linear_loss(threat):
    x, slope = torch.full((5, 3, 4, 4), 0.5, dtype=torch.float64), torch.randn(5, 3, 4, 4, dtype=torch.float64)
    x_adv = threat.project(x + 9 * threat.ascent(slope), x)
    torch.testing.assert_close(GradientNorm(threat)(slope, x), (slope * (x_adv - x)).flatten(1).sum(1))


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.1)])
def test_a_vanished_gradient_costs_nothing_and_breaks_nothing(threat):
    gradient = torch.zeros(2, 1, 2, 2, requires_grad=True)
    cost = GradientNorm(threat)(gradient, torch.zeros_like(gradient))
    cost.sum().backward()
    assert torch.equal(cost, torch.zeros(2))
    assert torch.equal(gradient.grad, torch.zeros_like(gradient))

"""The largest second derivative is the one that was asked for."""

import pytest
import torch

from trainers.activations.replace import NAMES, make

BENT = sorted(name for name, kind in NAMES.items() if getattr(kind(), "curvature", None) is not None)


def bend(module, x):
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    return torch.autograd.grad(slope.sum(), x)[0]


def test_all_but_those_without_a_fixed_bend_can_be_sharpened():
    assert set(NAMES) - set(BENT) == {"relu", "smooth_relu", "surrogate_relu"}


@pytest.mark.parametrize("name", BENT)
@pytest.mark.parametrize("curvature", [0.1, 1.0, 10.0])
def test_the_largest_second_derivative_is_the_curvature(name, curvature):
    x = torch.linspace(-6, 6, 40_001, dtype=torch.float64) / curvature
    x = x[x != 0]
    assert bend(make(name, curvature=curvature), x).abs().max().item() == pytest.approx(curvature, rel=2e-3)


@pytest.mark.parametrize("name", BENT)
def test_far_from_zero_the_slopes_are_what_they_were(name):
    x = torch.tensor([-400.0, 400.0], dtype=torch.float64)
    for module in (make(name), make(name, curvature=5.0)):
        y = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(module(y).sum(), y)
        torch.testing.assert_close(slope, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_parametric_softplus_of_a_curvature_is_that_of_four_times_its_alpha():
    x = torch.randn(100, dtype=torch.float64)
    torch.testing.assert_close(
        make("parametric_softplus", curvature=4.0)(x), make("parametric_softplus", alpha=16.0)(x)
    )


@pytest.mark.parametrize("name", ["relu", "smooth_relu", "surrogate_relu"])
def test_what_has_no_fixed_bend_is_refused(name):
    with pytest.raises(ValueError, match=r"curvature=4: \w+ has no largest second derivative"):
        make(name, curvature=4.0)


@pytest.mark.parametrize("curvature", [0, -1, float("inf")])
def test_a_curvature_that_is_none_is_refused(curvature):
    with pytest.raises(ValueError, match=r"activation_parameters\.curvature="):
        make("silu", curvature=curvature)

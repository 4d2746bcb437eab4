"""Formulas, derivatives and limits of the eight smooth activations."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from trainers.activations import smooth

FORMULAS = {
    "softplus": (smooth.Softplus(), lambda x: math.log(1 + math.exp(x))),
    "parametric_softplus": (smooth.ParametricSoftplus(), lambda x: math.log(1 + math.exp(10 * x)) / 10),
    "silu": (smooth.SiLU(), lambda x: x / (1 + math.exp(-x))),
    "gelu": (smooth.GELU(), lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
    "gelu_tanh": (
        smooth.GELU(approximate="tanh"),
        lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "elu": (smooth.ELU(alpha=2), lambda x: x if x >= 0 else 2 * (math.exp(x) - 1)),
    "celu": (smooth.CELU(alpha=2), lambda x: x if x >= 0 else 2 * (math.exp(x / 2) - 1)),
    "smooth_relu": (smooth.SmoothReLU(), lambda x: x - math.log(400 * x + 1) / 400 if x >= 0 else 0.0),
    "mish": (smooth.Mish(), lambda x: x * math.tanh(math.log(1 + math.exp(x)))),
}
LARGEST_BEND = {
    "softplus": 0.25,
    "parametric_softplus": 2.5,
    "silu": 0.5,
    "gelu": math.sqrt(2 / math.pi),
    "gelu_tanh": math.sqrt(2 / math.pi),
    "elu": 2.0,
    "celu": 0.5,
    "smooth_relu": 400.0,
    "mish": 0.644,
}


def derivatives(module, x):
    x = x.detach().requires_grad_()
    (first,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return first.detach(), second


@pytest.mark.parametrize("name", FORMULAS)
def test_values_follow_the_formula(name):
    module, formula = FORMULAS[name]
    x = torch.linspace(-6, 6, 97, dtype=torch.float64)
    expected = torch.tensor([formula(v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(module.double()(x).detach(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", FORMULAS)
def test_first_and_second_derivatives_are_right(name):
    module = FORMULAS[name][0].double()
    x = torch.tensor([-3.1, -0.7, -0.02, 0.03, 0.4, 1.9], dtype=torch.float64, requires_grad=True)
    assert gradcheck(module, (x,))
    assert gradgradcheck(module, (x,))


@pytest.mark.parametrize("name", FORMULAS)
def test_the_largest_second_derivative_is_the_documented_one(name):
    x = torch.cat([torch.linspace(-4, 4, 80_001, dtype=torch.float64), torch.tensor([-1e-9, 1e-9]).double()])
    second = derivatives(FORMULAS[name][0].double(), x)[1].abs().max().item()
    assert second == pytest.approx(LARGEST_BEND[name], rel=1e-3)


def test_parametric_softplus_tends_to_relu():
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    errors = [(smooth.ParametricSoftplus(alpha)(x) - x.relu()).abs().max().item() for alpha in (1.0, 10.0, 100.0)]
    # the gap is largest at 0, where it is log(2) / alpha
    assert errors == pytest.approx([math.log(2) / alpha for alpha in (1.0, 10.0, 100.0)])


def test_the_slope_of_elu_jumps_at_zero_unless_alpha_is_one_and_celu_never_does():
    around = torch.tensor([-1e-9, 1e-9], dtype=torch.float64)

    def jump(module):
        first, _ = derivatives(module, around)
        return (first[1] - first[0]).item()

    assert jump(smooth.ELU(alpha=2)) == pytest.approx(-1, abs=1e-6)
    assert jump(smooth.ELU()) == pytest.approx(0, abs=1e-6)
    assert jump(smooth.CELU(alpha=2)) == pytest.approx(0, abs=1e-6)


def test_smooth_relu_learns_its_alpha():
    module = smooth.SmoothReLU(alpha=4).double()
    x = torch.linspace(-1, 3, 9, dtype=torch.float64)
    assert gradcheck(lambda raw: torch.func.functional_call(module, {"raw": raw}, (x,)), (module.raw,))
    module(x).sum().backward()
    # a larger alpha bends sharper and lies closer to ReLU from below
    assert module.raw.grad > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_smooth_relu_is_safe_far_from_zero_and_exactly_flat_below_it(dtype):
    module = smooth.SmoothReLU()
    largest = min(torch.finfo(dtype).max, 1e30)
    x = torch.tensor([-largest, -1e4, -1e-3, 0.0, 1e-7, 1e4, largest], dtype=dtype, requires_grad=True)
    y = module(x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.float().sum(), x)
    assert y.dtype == dtype
    for values in (y, first, second):
        assert values.isfinite().all()
        assert (values[:3] == 0).all()
    torch.testing.assert_close(y[5:], x[5:], rtol=1e-2, atol=0)
    torch.testing.assert_close(first[5:], torch.ones_like(first[5:]), rtol=1e-2, atol=0)


def test_smooth_relu_survives_an_alpha_of_zero():
    module = smooth.SmoothReLU()
    module.raw.data.zero_()
    x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert module.raw.grad.isfinite()


@pytest.mark.parametrize("kind", [smooth.ParametricSoftplus, smooth.ELU, smooth.CELU, smooth.SmoothReLU])
@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_alpha_must_be_a_positive_number(kind, alpha):
    with pytest.raises(ValueError, match=r"model\.activation_parameters\.alpha=.* must be a number above 0"):
        kind(alpha=alpha)


def test_gelu_knows_two_forms():
    with pytest.raises(ValueError, match="approximate='erf' must be 'none'"):
        smooth.GELU(approximate="erf")

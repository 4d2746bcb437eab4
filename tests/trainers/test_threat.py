"""Threats: their balls, their steepest ascent, their random points, and what they refuse."""

import math

import pytest
import torch

from trainers.threat import L1, L2, Linf, create

BALLS = [Linf(0.1), Linf(0.9), L2(0.3), L2(3.0), L1(0.4), L1(9.0)]


@pytest.mark.parametrize("eps", [-0.1, 8, 1.01, math.nan])
def test_linf_refuses_eps_outside_pixel_units(eps):
    with pytest.raises(ValueError, match=r"threat.eps=.*\[0, 1\].*/255"):
        Linf(eps)


@pytest.mark.parametrize("eps", [0, -1, math.inf, math.nan])
def test_l2_and_l1_refuse_eps_that_bounds_nothing_or_everything(eps):
    for norm in (L2, L1):
        with pytest.raises(ValueError, match=r"threat.eps=.*above 0"):
            norm(eps)


def test_l2_refuses_eps_beyond_the_diagonal_of_the_images():
    L2(math.sqrt(3 * 32 * 32)).check((3, 32, 32))
    with pytest.raises(ValueError, match=r"threat.eps=8 is above 5.196.*\(3, 3, 3\)"):
        L2(8).check((3, 3, 3))


def test_l1_refuses_eps_beyond_the_distance_of_opposite_corners():
    L1(27).check((3, 3, 3))
    with pytest.raises(ValueError, match=r"threat.eps=28 is above 27.*\(3, 3, 3\)"):
        L1(28).check((3, 3, 3))


def test_a_threat_is_made_by_its_name():
    assert [create(norm, 0.5) for norm in ("Linf", "L2", "L1")] == [Linf(0.5), L2(0.5), L1(0.5)]
    with pytest.raises(ValueError, match=r"threat.norm='L0'.*Linf, L2, L1"):
        create("L0", 0.5)


@pytest.mark.parametrize("threat", BALLS)
def test_ascent_is_a_unit_step_that_gains_the_dual_norm(threat):
    g = torch.randn(9, 3, 4, 5, dtype=torch.float64)
    step = threat.ascent(g)
    torch.testing.assert_close(threat.distance(step, torch.zeros_like(g)), torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close((g * step).flatten(1).sum(1), threat.dual_norm(g))
    other = torch.randn_like(g)
    other = other / threat.distance(other, torch.zeros_like(g)).reshape(-1, 1, 1, 1)
    assert ((g * other).flatten(1).sum(1) < threat.dual_norm(g)).all()


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.3), L1(0.3)])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_ascent_has_the_same_direction_for_gradients_whose_squares_leave_float32(threat, scale):
    g = torch.randn(4, 3, 4, 5)
    torch.testing.assert_close(threat.ascent(g * scale), threat.ascent(g))


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.3), L1(0.3)])
def test_ascent_stands_still_where_there_is_no_slope(threat):
    g = torch.zeros(2, 1, 2, 2)
    g[1] = math.nan
    assert torch.equal(threat.ascent(g), torch.zeros_like(g))


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_project_lands_in_ball_and_cube_and_stays(threat, dtype):
    x = torch.rand(16, 3, 4, 5, dtype=dtype)
    x_adv = threat.project(x + 3 * torch.randn_like(x), x)
    assert x_adv.dtype == dtype
    assert (threat.distance(x_adv, x) <= threat.eps * (1 + 1e-6)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    torch.testing.assert_close(threat.project(x_adv, x), x_adv)


@pytest.mark.parametrize("threat", BALLS)
def test_project_leaves_a_point_inside_alone(threat):
    x = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    inside = x + (2 * torch.rand_like(x) - 1) * min(threat.eps, 0.5) / 16
    torch.testing.assert_close(threat.project(inside, x), inside, rtol=0, atol=1e-15)


def test_linf_project_is_the_nearest_point():
    x = torch.tensor([0.0, 0.05, 0.5, 1.0]).reshape(1, 1, 2, 2)
    x_adv = torch.tensor([-1.0, 0.2, 0.45, 0.8]).reshape(1, 1, 2, 2)
    expected = torch.tensor([0.0, 0.15, 0.45, 0.9]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(Linf(0.1).project(x_adv, x), expected)


def test_l2_project_shrinks_along_the_ray():
    x = torch.full((1, 1, 1, 2), 0.5)
    x_adv = x + torch.tensor([0.3, 0.4]).reshape(1, 1, 1, 2)
    expected = x + torch.tensor([0.06, 0.08]).reshape(1, 1, 1, 2)
    torch.testing.assert_close(L2(0.1).project(x_adv, x), expected)


def bisected(delta: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    """The nearest point of ball and cube, by halving an interval of how much each coordinate shrinks."""
    room = torch.where(delta > 0, 1 - x, x)
    low, high = torch.zeros(len(x), 1).double(), delta.abs().amax(1, keepdim=True)
    for _ in range(200):
        middle = (low + high) / 2
        outside = (delta.abs() - middle).clamp_min(0).minimum(room).sum(1, keepdim=True) > eps
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    return x + delta.sign() * (delta.abs() - high).clamp_min(0).minimum(room)


@pytest.mark.parametrize("eps", [1e-3, 0.4, 5.0, 30.0])
@pytest.mark.parametrize("size", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("pixels", [1, 2, 40])
def test_l1_project_is_the_nearest_point_of_ball_and_cube_together(eps, size, pixels):
    x = (3 * torch.rand(30, pixels).double() - 1).clamp(0, 1)  # two thirds at the edge of the cube
    delta = size * torch.randn(30, pixels).double()
    delta[::4, ::3] = 0
    projected = L1(eps).project((x + delta)[:, :, None, None], x[:, :, None, None])[:, :, 0, 0]
    torch.testing.assert_close(projected, bisected(delta, x, eps), rtol=1e-9, atol=1e-12)
    assert torch.equal(projected[::4, ::3], x[::4, ::3])


def test_l1_project_leaves_float32_no_room_beyond_eps():
    x = torch.rand(20, 3, 32, 32)
    for size in (0.05, 1.0, 5.0):
        x_adv = L1(12).project(x + size * torch.randn_like(x), x)
        assert (L1(12).distance(x_adv.double(), x.double()) <= 12).all()


def test_l1_ascent_changes_the_steepest_coordinate_alone():
    g = torch.tensor([[0.1, -3.0, 3.0, 0.0], [0.0, 0.0, -2.0, 1.0]]).reshape(2, 1, 2, 2)
    expected = torch.tensor([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]]).reshape(2, 1, 2, 2)
    assert torch.equal(L1(1.0).ascent(g), expected)


def test_linf_of_zero_is_the_image_itself():
    x = torch.rand(4, 3, 5, 5)
    assert torch.equal(Linf(0).project(x + torch.randn_like(x), x), x)
    assert torch.equal(Linf(0).random_start(x, torch.arange(4)), x)


@pytest.mark.parametrize("threat", BALLS)
def test_random_start_is_in_ball_and_cube_and_keyed_by_the_example(threat):
    x, keys = torch.rand(6, 3, 4, 5), torch.tensor([4, 9, 1, 0, 77, 3])
    start = threat.random_start(x, keys)
    assert (threat.distance(start, x) <= threat.eps * (1 + 1e-6)).all()
    assert start.min() >= 0
    assert start.max() <= 1
    assert torch.equal(threat.random_start(x[2:4].flip(0), keys[2:4].flip(0)), start[2:4].flip(0))
    assert not torch.equal(threat.random_start(x, keys + 1), start)


def test_linf_perturb_is_uniform_in_the_ball():
    n, eps = 40_000, 0.3
    delta = Linf(eps).perturb(torch.zeros(n, 1, 1, 2, dtype=torch.float64), torch.arange(n), eps).flatten(1)
    assert delta.mean(0).abs().max() < 5 * eps / math.sqrt(3 * n)
    torch.testing.assert_close(delta.var(0), torch.full((2,), eps**2 / 3).double(), rtol=0.02, atol=0)
    assert delta.abs().max() <= eps


def test_l2_perturb_is_uniform_in_the_ball():
    """Mean zero, ``E δ_i² = eps²/(D + 2)``, and ``(||δ|| / eps)^D`` uniform in [0, 1]."""
    n, eps, d = 40_000, 0.3, 4
    delta = L2(eps).perturb(torch.zeros(n, 1, 2, 2, dtype=torch.float64), torch.arange(n), eps).flatten(1)
    assert delta.mean(0).abs().max() < 5 * eps / math.sqrt((d + 2) * n)
    torch.testing.assert_close(delta.T.cov(), eps**2 / (d + 2) * torch.eye(d).double(), rtol=0.03, atol=3e-4)
    volume = (delta.norm(dim=1) / eps) ** d
    for q in (0.1, 0.5, 0.9):
        assert abs((volume < q).double().mean().item() - q) < 5 * math.sqrt(q * (1 - q) / n)


def test_l1_perturb_is_uniform_in_the_ball():
    """Mean zero, ``E δ_i² = 2 eps² / ((D + 1)(D + 2))``, and ``(||δ|| / eps)^D`` uniform in [0, 1]."""
    n, eps, d = 40_000, 0.3, 4
    delta = L1(eps).perturb(torch.zeros(n, 1, 2, 2, dtype=torch.float64), torch.arange(n), eps).flatten(1)
    variance = 2 * eps**2 / ((d + 1) * (d + 2))
    assert delta.mean(0).abs().max() < 5 * math.sqrt(variance / n)
    torch.testing.assert_close(delta.T.cov(), variance * torch.eye(d).double(), rtol=0.04, atol=2e-4)
    volume = (delta.abs().sum(1) / eps) ** d
    for q in (0.1, 0.5, 0.9):
        assert abs((volume < q).double().mean().item() - q) < 5 * math.sqrt(q * (1 - q) / n)


def test_scaled_changes_eps_alone_and_takes_a_warm_up_from_zero():
    assert Linf(0.2).scaled(0.5) == Linf(0.1)
    assert L2(0.2).scaled(0.5) == L2(0.1)
    x = torch.rand(3, 1, 4, 4)
    assert L1(0.2).scaled(0.5) == L1(0.1)
    for threat in (Linf(0.2), L2(0.2), L1(0.2)):
        start = threat.scaled(0.0).random_start(x, torch.arange(3))
        assert torch.equal(threat.scaled(0.0).project(start + 0.1, x), x)

"""Edge energy of images whose edges are known."""

import math

import pytest
import torch

from trainers.edges import EdgeEnergy


@pytest.mark.parametrize(("down", "across"), [(0.02, 0.0), (0.0, 0.03), (0.03, 0.04), (-0.03, 0.04)])
def test_a_slope_has_four_times_its_steepness_in_every_channel(down, across):
    """Sobel's weights sum to 2 on either side, two pixels apart; away from the border a blur leaves a plane alone."""
    rows, columns = torch.arange(24.0).double()[:, None], torch.arange(24.0).double()[None]
    x = (0.5 + down * rows + across * columns).expand(2, 3, 24, 24)
    energy = EdgeEnergy()(x)
    assert energy.shape == (2, 1, 24, 24)
    inside = energy[..., 7:-7, 7:-7]
    torch.testing.assert_close(inside, torch.full_like(inside, 4 * math.hypot(down, across) * math.sqrt(3)))


def test_a_constant_has_none_and_adding_one_changes_nothing(images):
    assert EdgeEnergy()(torch.full((2, 3, 6, 6), 0.7)).max() < 1e-6
    torch.testing.assert_close(EdgeEnergy()(images + 0.4), EdgeEnergy()(images))


def test_energy_scales_turns_and_mirrors_with_the_image(images):
    energy = EdgeEnergy()
    torch.testing.assert_close(energy(-3 * images), 3 * energy(images))
    torch.testing.assert_close(energy(images.rot90(1, (2, 3))), energy(images).rot90(1, (2, 3)))
    torch.testing.assert_close(energy(images.flip(3)), energy(images).flip(3))


def test_a_channel_that_is_flat_adds_nothing(images):
    flat = torch.cat([images, torch.full_like(images[:, :1], 0.2)], 1)
    torch.testing.assert_close(EdgeEnergy()(flat), EdgeEnergy()(images))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_the_blur_of_a_point_is_the_discrete_gaussian(sigma):
    """Neighbours are as ``I_1 / I_0``, the line sums to 1, and the variance is ``sigma`` but for the ends cut off."""
    point = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    point[..., 15, 15] = 1
    blurred = EdgeEnergy(sigma).blur(point)[0, 0]
    line = blurred.sum(0)
    s = torch.tensor(sigma, dtype=torch.float64)
    torch.testing.assert_close(line[16] / line[15], torch.special.i1(s) / torch.special.i0(s))
    torch.testing.assert_close(blurred, line[:, None] * line[None])
    assert line.sum().item() == pytest.approx(1)
    assert (line > 0).sum() == 2 * math.ceil(3 * sigma) + 1
    offsets = torch.arange(-15.0, 16.0).double()
    assert (line * offsets.square()).sum().item() == pytest.approx(sigma, rel=0.07)


def test_no_gradient_flows_into_it_and_the_type_stays(images):
    x = images.half().requires_grad_()
    energy = EdgeEnergy()(x)
    assert not energy.requires_grad
    assert energy.dtype == torch.float16
    torch.testing.assert_close(energy.double(), EdgeEnergy()(x.double()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_sigma_that_blurs_nothing_is_refused(sigma):
    with pytest.raises(ValueError, match=r"edges.sigma=.*must be above 0"):
        EdgeEnergy(sigma)


def test_images_smaller_than_the_blur_are_refused():
    assert EdgeEnergy(1.0)(torch.rand(1, 1, 4, 4)).shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"edges.sigma=1 blurs over 3 pixels.*\(3, 8\)"):
        EdgeEnergy(1.0)(torch.rand(1, 1, 3, 8))

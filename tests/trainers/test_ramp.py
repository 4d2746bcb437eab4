"""Ramps: the published one, its inverse, and lines that lead nowhere."""

import math

import pytest
import torch

from trainers.ramp import CONSTANT, Ramp


@pytest.mark.parametrize(("epoch", "value"), [(0, 0), (0.5, 0.1), (2.5, 0.5), (5, 1), (80, 1), (math.inf, 1)])
def test_the_published_ramp_is_full_after_five_epochs(epoch, value):
    assert Ramp()(epoch) == pytest.approx(value)
    assert Ramp()(torch.tensor(epoch, dtype=torch.float64)).item() == pytest.approx(value)


def test_a_delay_holds_the_start():
    ramp = Ramp(start=0.25, slope=0.5, stop=0.75, delay=2)
    assert [ramp(e) for e in (0, 2, 2.5, 3, 9)] == pytest.approx([0.25, 0.25, 0.5, 0.75, 0.75])


def test_a_ramp_may_fall():
    ramp = Ramp(start=1, slope=-0.5, stop=0)
    assert [ramp(e) for e in (0, 1, 2, math.inf)] == pytest.approx([1, 0.5, 0, 0])


def test_constant_is_one_at_every_epoch():
    assert [CONSTANT(e) for e in (0, 3.5, math.inf)] == [1, 1, 1]
    assert CONSTANT(torch.tensor(2.0)) == 1


@pytest.mark.parametrize(("start", "slope", "stop"), [(0, -0.1, 1), (1, 0.1, 0), (0, 0, 1)])
def test_a_slope_that_never_arrives_is_refused(start, slope, stop):
    with pytest.raises(ValueError, match=r"ramp.slope=.*sign of stop - start"):
        Ramp(start, slope, stop)

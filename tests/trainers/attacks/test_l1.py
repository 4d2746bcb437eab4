"""What only the L1 versions of the attacks have: phases in larger balls, few coordinates, points that add up."""

import copy

import pytest
import torch
from torch import nn

from tests.trainers.attacks.nets import trained
from trainers.attacks.apgd import APGD
from trainers.attacks.apgd_l1 import SparseAscent, larger_phases
from trainers.attacks.cascade import autoattack
from trainers.attacks.draws import Keyed, Sequential
from trainers.attacks.fab import FAB
from trainers.attacks.search import attack
from trainers.attacks.square import Square
from trainers.modes import input_gradient
from trainers.threat import L1, L2, Linf


def test_autoattack_is_the_published_one():
    threat = L1(12)
    assert autoattack(threat).members == (
        APGD(threat, restarts=5, larger_eps=True),
        APGD(threat, "targeted_dlr", targets=5, larger_eps=True),
        FAB(threat),
        Square(threat),
    )
    assert APGD(threat, "dlr", larger_eps=True) in autoattack(threat, classes=3).members
    for version in ("plus", "rand"):
        assert not any(getattr(member, "larger_eps", False) for member in autoattack(threat, version).members)


def test_the_steps_are_shared_out_among_the_balls():
    assert larger_phases(12.0, 100) == ((36.0, 30), (24.0, 30), (12.0, 40))
    assert [n for _, n in larger_phases(1.0, 7)] == [3, 3, 1]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=repr)
def test_larger_balls_are_refused_elsewhere(threat):
    with pytest.raises(ValueError, match=r"attack.larger_eps=true.*" + threat.norm):
        APGD(threat, larger_eps=True)


def test_too_few_steps_for_the_phases_are_refused():
    APGD(L1(1.0), steps=5, larger_eps=True)
    with pytest.raises(ValueError, match=r"attack.steps=4.*5 or more"):
        APGD(L1(1.0), steps=4, larger_eps=True)


def test_each_phase_walks_in_its_own_ball_and_the_last_alone_may_win():
    net, x, y = trained(10)
    x, y, eps = x[:16].double(), y[:16], 3.0
    net = copy.deepcopy(net).double()
    search = APGD(L1(eps), steps=10, larger_eps=True)
    rows = search.start(net, {"x": x, "y": y, "key": torch.arange(16), "part": torch.zeros_like(y)}, Keyed())
    radii, phases = [], []
    for _ in range(12):  # ten steps, and two more to begin the second and the third phase
        assert not (rows["won"] & (rows["phase"] < 2)).any()
        assert not rows["over"].all()
        radii.append(search.threat.distance(rows["best"], x).amax())
        phases.append(int(rows["phase"][0]))
        rows = search.step(net, rows, Keyed())
    assert rows["over"].all()
    assert rows["won"].any()
    assert phases == [0] * 4 + [1] * 4 + [2] * 4
    for radius, phase in zip(radii, phases, strict=True):
        assert eps * (2.5 - phase) < radius <= eps * (3 - phase) * (1 + 1e-9)


def test_a_step_changes_the_share_of_largest_slopes_by_eps_together():
    """On a linear model, from the image itself: at first a fifth of the coordinates, each by eps over their number."""
    slope = torch.arange(1.0, 31.0).double()
    x, n = torch.full((1, 1, 5, 6), 0.5).double(), 30
    ascent = SparseAscent(((1.5, 50),))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(n, 2)).double()
    linear[1].weight.data.copy_(torch.stack([-slope, slope]))

    def gradient(point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return input_gradient(linear, point, lambda logits: logits[:, 1])

    y = torch.ones(1, dtype=torch.int64)
    start = {"x": x, "y": y, "key": y, "part": y * 0}
    rows = ascent.start(start, torch.zeros_like(x), gradient)
    first = ascent.step(rows, gradient)["x_adv"] - x
    assert (first.flatten().nonzero()[:, 0] == torch.arange(24, 30)).all()
    torch.testing.assert_close(first.flatten()[24:], torch.full((6,), 1.5 / 6).double())


@pytest.mark.parametrize("shape", [(3, 9, 14), (1, 14, 9), (2, 3, 3)], ids=str)
@pytest.mark.parametrize("draws", [None, Sequential(1)], ids=["keyed", "sequential"])
def test_any_shape_of_image_gives_points_that_add_up_in_float32(shape, draws):
    net, x, y = trained(4, shape)
    threat = L1(x[0].numel() / 8)
    for search in (APGD(threat, steps=10, larger_eps=True), Square(threat, queries=30), FAB(threat, steps=5)):
        x_adv = attack(search, net, x, y, torch.arange(len(x)), draws)
        moved = (x_adv != x).flatten(1).any(1)
        assert moved.any()
        assert (threat.distance(x_adv.double(), x.double()) <= threat.eps * (1 + 1e-7)).all()
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1


def test_the_authors_roundings_change_little():
    """Of 64 examples as many withstand, give or take a few, whether or not a rounding error counts as a change."""
    net, x, y = trained(10)
    search = APGD(L1(5.0), steps=50, larger_eps=True)
    keyed, theirs = (
        int((net(attack(search, net, x, y, torch.arange(64), draws)).argmax(1) == y).sum())
        for draws in (None, Sequential(0))
    )
    assert 10 < theirs < 40
    assert abs(keyed - theirs) <= 3

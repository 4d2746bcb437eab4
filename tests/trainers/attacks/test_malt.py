"""Targets by distance, where the largest logit is not the nearest boundary."""

import pytest
import torch
from torch import Tensor, nn

from trainers.attacks.apgd import APGD
from trainers.attacks.malt import MALT
from trainers.threat import L2, Linf

EPS = 0.1


def misleading() -> tuple[nn.Module, Tensor, Tensor]:
    """Logits of 16 pixels at 0.5: class 1 is second but flat, class 4 is last but so steep that eps is enough.

    Every class is a linear function of the pixels, class 4 in a direction of its own; class 0 is the constant 1.
    """
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).double()
    slopes = torch.tensor([0.0, 0.02, 0.02, 0.02, 2.0]).double()
    at_half = torch.tensor([1.0, 0.9, 0.8, 0.7, -1.5]).double()
    pixels = torch.arange(16)
    fine, coarse = (torch.where(pixels // width % 2 == 0, 1.0, -1.0).double() for width in (1, 2))
    net[1].weight.data.copy_(slopes[:, None] * torch.stack([fine, fine, fine, fine, coarse]))
    net[1].bias.data.copy_(at_half - net[1].weight.data.sum(1) / 2)
    return net.eval(), torch.full((3, 1, 4, 4), 0.5).double(), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("threat", [Linf(EPS), L2(4 * EPS)], ids=repr)
def test_the_nearest_boundary_comes_first(threat):
    net, x, y = misleading()
    ranked = MALT(threat, targets=4).ranked(net, x, y)
    weights, logits = net[1].weight.data, net(x)[0].detach()
    distances = {
        k: float((logits[0] - logits[k]) / threat.dual_norm((weights[k] - weights[0]).reshape(1, 1, 4, 4)))
        for k in range(1, 5)
    }
    assert ranked.tolist() == [sorted(distances, key=distances.__getitem__)] * 3
    assert ranked[0, 0] == 4
    assert APGD(threat, "targeted_dlr", targets=4).ranked(net, x, y)[0].tolist() == [1, 2, 3, 4]


def test_it_finds_with_one_target_what_logits_need_four_for():
    net, x, y = misleading()
    keys = torch.arange(3)

    def fooled(attack: APGD) -> bool:
        return bool((net(attack(net, x, y, keys)).argmax(1) != y).all())

    assert fooled(MALT(Linf(EPS), targets=1, candidates=4))
    assert not fooled(APGD(Linf(EPS), "targeted_dlr", targets=1))
    assert fooled(APGD(Linf(EPS), "targeted_dlr", targets=4))


def test_only_the_candidates_are_ranked():
    net, x, y = misleading()
    assert MALT(Linf(EPS), targets=2, candidates=2).ranked(net, x, y)[0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("settings", "message"), [({"loss": "ce"}, "attack.loss='ce'"), ({"candidates": 3}, "attack.candidates=3")]
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MALT(Linf(EPS), **settings)

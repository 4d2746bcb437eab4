"""Moving images to other classes, on networks where it is known how far that goes."""

import math

import pytest
import torch
from torch import nn

from trainers import losses
from trainers.attacks.pgd import PGD
from trainers.evaluation.synthesis import Synthesis
from trainers.threat import L2
from trainers.types import Batch

SMALL = L2(0.5)


def in_two(images, labels, keys):
    return [Batch(images[:3], labels[:3], keys[:3]), Batch(images[3:], labels[3:], keys[3:])]


class Sums(nn.Module):
    """Two classes: ``±sharpness · (Σ x - D/2)``, the second one's with another sign where ``flipped``."""

    def __init__(self, sharpness=1.0, flipped=False):
        super().__init__()
        self.sharpness = -sharpness if flipped else sharpness

    def forward(self, x):
        score = self.sharpness * (x - 0.5).flatten(1).sum(1)
        return torch.stack([-score, score], 1)


def test_a_linear_network_moves_every_pixel_alike_as_far_as_it_may(keys):
    """``||δ|| = eps`` spread evenly: each pixel moves by ``eps / sqrt(D)``."""
    x, y = torch.full((8, 1, 4, 4), 0.5).double(), torch.tensor([0, 1] * 4)
    probe = Synthesis(L2(0.8), Sums(2.0), classes=2, steps=10)
    made, target = probe.images(Sums(), Batch(x, y, keys))
    assert torch.equal(target, 1 - y)
    sign = (2.0 * target - 1).reshape(8, 1, 1, 1).double()
    torch.testing.assert_close(made, x + sign * 0.8 / math.sqrt(16))
    found = dict(probe(Sums(), in_two(x, y, keys)))
    p = torch.sigmoid(torch.tensor(2 * 16 * 0.8 / 4).double()).item()
    assert found == pytest.approx(
        {"synthesis_target_probability": p, "synthesis_judge_agreement": 1.0, "synthesis_distance": 0.8}
    )


def test_a_judge_that_sees_the_opposite_never_agrees(keys):
    x, y = torch.full((8, 1, 4, 4), 0.5).double(), torch.tensor([0, 1] * 4)
    found = dict(Synthesis(L2(0.8), Sums(flipped=True), classes=2, steps=3)(Sums(), in_two(x, y, keys)))
    assert found["synthesis_judge_agreement"] == 0
    assert found["synthesis_target_probability"] > 0.9


def test_the_probe_is_the_mean_over_what_targeted_descent_makes(small_net, images, labels, keys):
    model, judge = small_net(), small_net(seed=1)
    probe = Synthesis(SMALL, judge, classes=5, steps=8, step_size=0.2)
    target = probe.targets(labels, keys)
    attack = PGD(SMALL, 8, 0.2, random_start=False, targeted=True, keep="last")
    made = attack(model, images, target, keys)
    found = dict(probe(model, in_two(images, labels, keys)))
    rows = torch.arange(8)
    assert found == pytest.approx(
        {
            "synthesis_target_probability": model(made).softmax(1)[rows, target].mean().item(),
            "synthesis_judge_agreement": (judge(made).argmax(1) == target).double().mean().item(),
            "synthesis_distance": SMALL.distance(made, images).mean().item(),
        }
    )
    assert (SMALL.distance(made, images) <= SMALL.eps * (1 + 1e-9)).all()
    before, after = (losses.cross_entropy(model(x), target) for x in (images, made))
    assert (after < before).all()


class Rows(nn.Module):
    """Class k is a bright k-th row."""

    def forward(self, x):
        return 2 * x.sum((1, 3))[:, :5]


def test_further_is_more_convincing(small_net, images, labels, keys):
    model, judge = Rows(), small_net()
    probabilities = [
        dict(Synthesis(L2(eps), judge, classes=5, steps=20)(model, [Batch(images, labels, keys)]))[
            "synthesis_target_probability"
        ]
        for eps in (1e-6, 0.5, 1.5, 4.0)
    ]
    assert probabilities == sorted(probabilities)
    assert probabilities[-1] > 0.9


def test_targets_are_every_other_class_as_often_by_example_and_seed(small_net):
    probe = Synthesis(SMALL, small_net(), classes=5)
    y, keys = torch.full((8_000,), 3), torch.arange(8_000)
    target = probe.targets(y, keys)
    counts = target.bincount(minlength=5)
    assert counts[3] == 0
    assert ((counts[[0, 1, 2, 4]] - 2_000).abs() < 5 * math.sqrt(8_000 * 3 / 16)).all()
    assert torch.equal(probe.targets(y[5:9], keys[5:9].flip(0)), target[5:9].flip(0))
    assert not torch.equal(Synthesis(SMALL, small_net(), classes=5, seed=1).targets(y, keys), target)
    soft = nn.functional.one_hot(y, 5).double()
    assert torch.equal(probe.targets(soft, keys), target)


def test_both_networks_are_left_as_they_were(small_net, images, labels, keys):
    model, judge = small_net(dropout=0.5).train(), small_net(seed=1, dropout=0.5).train()
    before = [t.clone() for network in (model, judge) for t in network.state_dict().values()]
    dict(Synthesis(SMALL, judge, classes=5, steps=2)(model, [Batch(images, labels, keys)]))
    after = [t for network in (model, judge) for t in network.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for network in (model, judge):
        assert all(module.training for module in network.modules())
        assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_bad_input_is_refused(small_net, images, labels, keys):
    model, batch = small_net(), [Batch(images, labels, keys)]
    with pytest.raises(ValueError, match="classes=1 must be at least 2"):
        Synthesis(SMALL, model, classes=1)
    with pytest.raises(ValueError, match=r"attack.steps=0"):
        Synthesis(SMALL, model, classes=5, steps=0)
    with pytest.raises(ValueError, match="judge is the network that makes the images"):
        dict(Synthesis(SMALL, model, classes=5)(model, batch))
    with pytest.raises(ValueError, match="classes=5, but judge has 2"):
        dict(Synthesis(SMALL, Sums(), classes=5)(model, batch))
    with pytest.raises(ValueError, match=r"threat.eps=20 is above"):
        dict(Synthesis(L2(20), small_net(seed=1), classes=5)(model, batch))
    with pytest.raises(ValueError, match="no examples to measure synthesis on"):
        dict(Synthesis(SMALL, model, classes=5)(small_net(seed=1), []))

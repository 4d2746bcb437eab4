"""MART against its formula, written out for each example."""

import math

import pytest
import torch

from trainers import losses
from trainers.attacks.pgd import PGD
from trainers.objectives.mart import MART
from trainers.threat import Linf

ATTACK = PGD(Linf(0.1), steps=3, keep="last")


def _by_hand(model, x, x_adv, y, beta):
    p, q = model(x).softmax(1), model(x_adv).softmax(1)
    total = 0.0
    for i, label in enumerate(y.tolist()):
        wrong = max(q[i, k] for k in range(q.shape[1]) if k != label)
        boosted = -q[i, label].log() - (1 - wrong).log()
        divergence = sum(p[i, k] * (p[i, k] / q[i, k]).log() for k in range(p.shape[1]))
        total = total + boosted + beta * divergence * (1 - p[i, label])
    return total / len(y)


@pytest.mark.parametrize("soft", [False, True])
def test_loss_and_gradients_are_the_formulas(small_net, images, labels, soft_labels, keys, soft):
    model, y = small_net(), soft_labels if soft else labels
    loss, _ = MART(ATTACK, beta=2.0)(model, images, y, keys)
    y = losses.hard(y)
    x_adv = ATTACK.maximise(model, images, lambda z: losses.cross_entropy(z, y), keys)
    expected = _by_hand(model, images, x_adv, y, 2.0)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), rtol=1e-4, atol=1e-6
    )


def test_a_hopeless_example_keeps_the_loss_finite(small_net, images, labels, keys):
    model = small_net().float()
    model[-1].weight.data.mul_(1000)
    loss, _ = MART(ATTACK)(model, images.float(), labels, keys)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_negative_beta_is_refused():
    with pytest.raises(ValueError, match=r"objective.beta=-1"):
        MART(ATTACK, beta=-1)

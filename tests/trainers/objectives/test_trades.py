"""TRADES against its formula, and the start it needs."""

import pytest
import torch
import torch.nn.functional as F

from trainers.attacks.pgd import PGD
from trainers.objectives.trades import TRADES
from trainers.threat import L2, Linf

ATTACK = PGD(Linf(0.1), steps=3, keep="last")


def test_loss_is_cross_entropy_plus_beta_times_the_divergence(small_net, images, labels, keys):
    model = small_net()
    loss, metrics = TRADES(ATTACK, beta=3.0)(model, images, labels, keys)
    p = model(images).softmax(1)
    x_adv = ATTACK.maximise(model, images, lambda z: (p.detach() * (p.detach().log() - z.log_softmax(1))).sum(1), keys)
    q = model(x_adv).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss, F.cross_entropy(model(images), labels) + 3 * divergence)
    torch.testing.assert_close(metrics["divergence"], divergence.detach())


def test_both_predictions_are_trained(small_net, images, labels, keys):
    """The clean prediction is not a constant of the divergence: its gradient flows too."""
    model = small_net()
    TRADES(ATTACK, beta=3.0)(model, images, labels, keys)[0].backward()
    got = [p.grad.clone() for p in model.parameters()]

    p = model(images).softmax(1)
    x_adv = ATTACK.maximise(model, images, lambda z: (p.detach() * (p.detach().log() - z.log_softmax(1))).sum(1), keys)
    q = model(x_adv).softmax(1)
    expected = F.cross_entropy(model(images), labels) + 3 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(got, list(torch.autograd.grad(expected, list(model.parameters()))))


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)])
def test_the_attack_leaves_its_start(small_net, images, labels, keys, threat):
    model = small_net()
    attack = PGD(threat, steps=5)
    _, metrics = TRADES(attack)(model, images, labels, keys)
    log_p, log_q = (model(z).log_softmax(1) for z in (images, threat.random_start(images, keys)))
    at_random = F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    assert metrics["divergence"] > 1.5 * at_random


def test_a_start_at_x_is_refused():
    with pytest.raises(ValueError, match=r"random_start=false.*true"):
        TRADES(PGD(Linf(0.1), random_start=False))


@pytest.mark.parametrize("beta", [-1, float("nan")])
def test_a_negative_beta_is_refused(beta):
    with pytest.raises(ValueError, match=r"objective.beta="):
        TRADES(ATTACK, beta=beta)

"""Where two methods meet they are the same method, and what can only be harder is never easier."""

import dataclasses

import pytest
import torch
from torch import nn

from trainers import losses
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.evaluation.accuracy import CleanAccuracy, RobustAccuracy
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.objectives.mart import MART
from trainers.objectives.standard import Standard
from trainers.objectives.trades import TRADES
from trainers.penalties.gradient_norm import GradientNorm
from trainers.threat import L2, Linf
from trainers.types import Batch

ATTACK = PGD(Linf(0.1), steps=3, keep="last")


def _step(objective, model, x, y, keys):
    """Loss, gradients and the buffers afterwards."""
    model.zero_grad()
    loss, _ = objective(model, x, y, keys)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()], [b.clone() for b in model.buffers()]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_trades_with_beta_zero_is_standard_training(small_net, images, labels, keys, mode, smoothing):
    ours, standard = (small_net().train(mode == "train") for _ in range(2))
    torch.testing.assert_close(
        _step(TRADES(ATTACK, beta=0, smoothing=smoothing), ours, images, labels, keys),
        _step(Standard(smoothing=smoothing), standard, images, labels, keys),
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("attack", [FGSM(Linf(0)), PGD(Linf(0), steps=2), PGD(Linf(0), steps=2, keep="last")], ids=repr)
def test_adversarial_training_with_eps_zero_is_standard_training(small_net, images, labels, keys, mode, attack):
    if isinstance(attack, PGD):
        attack = dataclasses.replace(attack, step_size=0.01)
    ours, standard = (small_net().train(mode == "train") for _ in range(2))
    torch.testing.assert_close(
        _step(AdversarialTraining(attack), ours, images, labels, keys),
        _step(Standard(), standard, images, labels, keys),
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_gradient_penalty_of_weight_zero_is_standard_training(small_net, images, labels, keys, mode):
    ours, standard = (small_net().train(mode == "train") for _ in range(2))
    objective = GradientRegularized(GradientNorm(Linf(0.1)), weight=0, loss_weight=1)
    torch.testing.assert_close(
        _step(objective, ours, images, labels, keys), _step(Standard(), standard, images, labels, keys)
    )


def test_mart_with_beta_zero_on_unperturbed_images_is_its_boosted_cross_entropy(small_net, images, labels, keys):
    attack = PGD(Linf(0), steps=1, step_size=0.01, keep="last")
    loss, _ = MART(attack, beta=0)(small_net(), images, labels, keys)
    p = small_net()(images).softmax(1)
    runner_up = p.scatter(1, labels[:, None], 0).amax(1)
    expected = (-p.gather(1, labels[:, None])[:, 0].log() - (1 - runner_up).log()).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.4)], ids=repr)
def test_pgd_with_one_full_step_is_fgsm(small_net, images, labels, keys, threat):
    model = small_net()
    pgd = PGD(threat, steps=1, step_size=threat.eps, random_start=False, keep="last")
    torch.testing.assert_close(pgd(model, images, labels, keys), FGSM(threat)(model, images, labels, keys))


def test_pgd_of_more_steps_or_eps_is_stronger(small_net, images, labels, keys):
    model = small_net()

    def reached(attack):
        return losses.cross_entropy(model(attack(model, images, labels, keys)), labels).mean()

    by_steps = [reached(PGD(Linf(0.1), steps=k, step_size=0.02)) for k in (1, 3, 20)]
    by_eps = [reached(PGD(Linf(eps), steps=10)) for eps in (0.01, 0.05, 0.2)]
    assert by_steps == sorted(by_steps)
    assert by_eps == sorted(by_eps)


def test_robust_is_never_above_clean_and_falls_with_eps(small_net, images, keys):
    model = small_net()
    y = model(images).argmax(1)
    y[0] = (y[0] + 1) % 5
    batches = [Batch(images, y, keys)]
    ((_, clean),) = CleanAccuracy()(model, batches)
    robust = [dict(RobustAccuracy(PGD(Linf(eps), steps=10))(model, batches))["robust_accuracy"] for eps in (0, 0.05, 1)]
    assert clean == robust[0] == 7 / 8
    assert robust[0] >= robust[1] >= robust[2]
    assert robust[2] < robust[0]


def test_small_steps_of_pgd_raise_the_loss_by_the_gradient_norm(small_net, images, labels):
    """``CE(x + δ*) - CE(x) → eps · ||∇CE||_*`` as eps falls: the penalty is the attack's first order."""
    model, x = small_net(), images.clamp(0.01, 0.99)
    for threat in (Linf(1e-5), L2(1e-5)):
        gained = losses.cross_entropy(model(FGSM(threat)(model, x, labels)), labels) - losses.cross_entropy(
            model(x), labels
        )
        gradient = torch.func.grad(lambda z: losses.cross_entropy(model(z), labels).sum())(x)
        torch.testing.assert_close(gained, GradientNorm(threat)(gradient, x), rtol=1e-2, atol=0)


@pytest.mark.parametrize(("activation", "reached"), [(nn.ReLU, False), (nn.GELU, True)])
def test_a_logit_gradient_penalty_reaches_first_biases_only_through_a_second_derivative(
    small_net, images, activation, reached
):
    """ReLU's is zero almost everywhere: a piecewise linear network's slope does not depend on where it bends."""
    model = small_net(activation=activation, norm=False)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), images, create_graph=True)
    penalty = GradientNorm(Linf(0.1))(gradient, images).mean()
    (slope,) = torch.autograd.grad(penalty, model[0].bias, materialize_grads=True)
    assert (slope.abs().max() > 1e-4) == reached
    if not reached:
        assert torch.equal(slope, torch.zeros_like(slope))

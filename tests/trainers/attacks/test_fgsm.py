"""FGSM against its formula."""

import math

import pytest
import torch

from trainers import losses
from trainers.attacks.fgsm import FGSM
from trainers.threat import L2, Linf


def _gradient(model, x, y):
    x = x.clone().requires_grad_()
    losses.cross_entropy(model(x), y).sum().backward()
    return x.grad


def test_linf_is_a_step_along_the_sign(small_net, images, labels):
    model = small_net()
    expected = (images + 0.05 * _gradient(model, images, labels).sign()).clamp(0, 1)
    torch.testing.assert_close(FGSM(Linf(0.05))(model, images, labels), expected)


def test_l2_is_a_step_along_the_normalised_gradient(small_net, images, labels):
    model = small_net()
    gradient = _gradient(model, images, labels)
    unit = gradient / gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(FGSM(L2(0.4))(model, images, labels), (images + 0.4 * unit).clamp(0, 1))


def test_random_start_steps_from_a_point_of_the_ball_and_comes_back_into_it(small_net, images, labels, keys):
    model, threat = small_net(), Linf(0.05)
    start = threat.random_start(images, keys)
    stepped = start + 1.25 * 0.05 * _gradient(model, start, labels).sign()
    expected = torch.minimum(torch.maximum(stepped, images - 0.05), images + 0.05).clamp(0, 1)
    attack = FGSM(threat, step_size=1.25 * 0.05, random_start=True)
    torch.testing.assert_close(attack(model, images, labels, keys), expected)


def test_warmup_scales_eps_and_step_size(small_net, images, labels):
    model, attack = small_net(), FGSM(Linf(0.1), step_size=0.08)

    def loss(logits):
        return losses.cross_entropy(logits, labels)

    inner = images.clamp(0.2, 0.8)
    assert torch.equal(attack.maximise(model, inner, loss, warmup=(1.0, 0.0)), inner)
    assert torch.equal(attack.maximise(model, inner, loss, warmup=(0.0, 1.0)), inner)
    half = attack.maximise(model, inner, loss, warmup=(1.0, 0.5))
    torch.testing.assert_close(attack.threat.distance(half, inner), torch.full((8,), 0.04, dtype=torch.float64))
    capped = attack.maximise(model, inner, loss, warmup=(0.5, 1.0))
    torch.testing.assert_close(attack.threat.distance(capped, inner), torch.full((8,), 0.05, dtype=torch.float64))


@pytest.mark.parametrize("step_size", [0.0, -0.1, math.nan])
def test_a_step_size_that_does_not_climb_is_refused(step_size):
    with pytest.raises(ValueError, match=r"attack.step_size=.*above 0"):
        FGSM(Linf(0.1), step_size=step_size)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"attack.model_mode='Train'"):
        FGSM(Linf(0.1), model_mode="Train")

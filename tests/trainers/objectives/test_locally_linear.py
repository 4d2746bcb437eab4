"""ELLE: its error is zero for a linear loss, known for a quadratic one, and weighed."""

import pytest
import torch
from torch import nn

from trainers.attacks.fgsm import FGSM
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.locally_linear import LocallyLinear, linearity_error
from trainers.threat import L2, Linf

THREATS = [Linf(0.1), L2(0.4)]


@pytest.mark.parametrize("threat", THREATS)
def test_a_linear_loss_has_no_error(images, keys, threat):
    slope = torch.randn(108, dtype=torch.float64)
    error = linearity_error(nn.Flatten(), images, lambda z: z @ slope, threat, keys)
    torch.testing.assert_close(error, torch.zeros(8, dtype=torch.float64))


@pytest.mark.parametrize("threat", THREATS)
def test_a_quadratic_loss_has_the_error_of_its_second_difference(images, keys, threat):
    """``l(c) - (1 - t) l(a) - t l(b) = -t (1 - t) ||a - b||²`` for ``l = ||x||²``: at most a quarter of the square of
    the ball's diameter."""
    error = linearity_error(nn.Flatten(), images, lambda z: z.square().sum(1), threat, keys)
    diameter = 2 * threat.eps * (108**0.5 if threat.norm == "Linf" else 1)
    assert (error > 0).all()
    assert (error <= (diameter**2 / 4) ** 2).all()
    scaled = linearity_error(nn.Flatten(), images, lambda z: 3 * z.square().sum(1), threat, keys)
    torch.testing.assert_close(scaled, 9 * error)


def test_it_is_adversarial_training_plus_the_weighed_error(small_net, images, labels, keys):
    model, attack = small_net(), FGSM(Linf(0.1))
    plain, _ = AdversarialTraining(attack)(model, images, labels, keys)
    torch.testing.assert_close(LocallyLinear(attack, weight=0.0)(model, images, labels, keys)[0], plain)
    loss, metrics = LocallyLinear(attack, weight=7.0)(model, images, labels, keys)
    torch.testing.assert_close(loss.detach(), plain.detach() + 7 * metrics["linearity_error"])
    assert metrics["linearity_error"] > 0


@pytest.mark.parametrize(("setting", "value"), [("weight", -1.0), ("smoothing", 1.0), ("mode", "both")])
def test_what_makes_no_sense_is_refused(setting, value):
    with pytest.raises(ValueError, match=rf"objective\.{setting}="):
        LocallyLinear(FGSM(Linf(0.1)), **{setting: value})

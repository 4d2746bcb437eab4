"""N-FGSM: where its points lie, and what it is without its noise."""

import pytest
import torch

from trainers.attacks.fgsm import FGSM
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.noisy_single_step import NoisySingleStep
from trainers.threat import L2, Linf


def points(objective, model, images, labels, keys):
    """The images that the loss is taken at: the last the network sees."""
    seen = []
    hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    objective(model, images, labels, keys)
    hook.remove()
    return seen[-1]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.4)])
def test_without_noise_it_is_training_on_fgsm(small_net, images, labels, keys, threat):
    """Whose projection does nothing to a step of eps, but in L2 to what was clipped to the cube before."""
    model, inner = small_net(), 0.5 + 0.1 * (images - 0.5)
    found, _ = NoisySingleStep(threat, noise=0.0)(model, inner, labels, keys)
    torch.testing.assert_close(found, AdversarialTraining(FGSM(threat))(model, inner, labels, keys)[0])


def test_its_points_leave_the_threat_but_not_the_noise_and_a_step_nor_the_image(small_net, images, labels, keys):
    threat = Linf(0.1)
    found = points(NoisySingleStep(threat), small_net(), images, labels, keys)
    distance = threat.distance(found, images)
    assert (distance > threat.eps).all()
    assert (distance <= 3 * threat.eps + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_step_is_taken_at_the_noisy_point(small_net, images, labels, keys):
    """Up the loss from there: on a smooth network more than a step of the same length the other way."""
    threat, model = Linf(0.01), small_net()
    start = threat.perturb(images, keys, 0.02)
    up = points(NoisySingleStep(threat), model, images, labels, keys)
    down = (2 * start - up).clamp(0, 1)
    loss = torch.nn.functional.cross_entropy
    assert loss(model(up), labels) > loss(model(start.clamp(0, 1)), labels) > loss(model(down), labels)


@pytest.mark.parametrize(("setting", "value"), [("noise", -1.0), ("step_size", 0.0), ("smoothing", -0.1)])
def test_what_makes_no_sense_is_refused(setting, value):
    with pytest.raises(ValueError, match=rf"objective\.{setting}="):
        NoisySingleStep(Linf(0.1), **{setting: value})

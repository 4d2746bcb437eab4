"""The way to the adversarial example: its ends are the image and the example, measured by the other probes."""

import pytest
import torch
from torch import nn

from trainers import losses
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.evaluation.curvature import Curvature
from trainers.evaluation.gradients import GradientNorms
from trainers.evaluation.interpolation import Interpolation
from trainers.threat import Linf
from trainers.types import Batch

ATTACK = PGD(Linf(0.05), steps=3)


def others(model, batch):
    """What the probes of one point say of ``batch``."""
    found = dict(Curvature(5)(model, [batch])) | dict(GradientNorms()(model, [batch]))
    loss = losses.cross_entropy(model(batch.x), batch.y).mean().item()
    return {"loss": loss} | {name: found[name] for name in ("gradient_l1", "hessian_norm", "normalised_curvature")}


def at(found, place):
    return {name.removesuffix(f"_at_{place}"): value for name, value in found.items() if name.endswith(f"_at_{place}")}


def test_the_ends_are_the_image_and_the_adversarial_example_and_beyond(small_net, images, labels, keys):
    model = small_net()
    batches = [Batch(images[:3], labels[:3], keys[:3]), Batch(images[3:], labels[3:], keys[3:])]
    found = dict(Interpolation(ATTACK, points=4, curvature=Curvature(5))(model, batches))
    assert len(found) == 4 * 5
    x_adv = ATTACK(model, images, labels, keys)
    for place, x in (("0", images), ("0.5", (images + x_adv) / 2), ("1", x_adv), ("2", 2 * x_adv - images)):
        assert at(found, place) == pytest.approx(others(model, Batch(x, labels, keys)), rel=1e-9)
    assert at(found, "1")["loss"] > at(found, "0")["loss"]


def test_float32_images_too_meet_their_ends_exactly(small_net, images, labels, keys):
    model, x = small_net().float(), images.float()
    _, rows = Interpolation(ATTACK, points=2, curvature=Curvature(1)).values(model, [Batch(x, labels, keys)])
    for place, end in ((0, x), (1, ATTACK(model, x, labels, keys))):
        assert torch.equal(rows[:, 4 * place], losses.cross_entropy(model(end), labels).double())


def test_a_loss_that_is_a_parabola_along_the_line_is_found_at_every_point(keys):
    """Logits ``(s, -s)`` with ``s = Σ x`` and an attack that moves each pixel by eps: the loss is a softplus of 2s."""

    class Sum(nn.Module):
        def forward(self, x):
            score = x.flatten(1).sum(1) - 2
            return torch.stack([score, -score], 1)

    x, y, eps = torch.full((8, 1, 2, 2), 0.5).double(), torch.zeros(8, dtype=torch.int64), 0.1
    probe = Interpolation(FGSM(Linf(eps)))
    assert len(probe.places) == 17
    found = dict(probe(Sum(), [Batch(x, y, keys)]))
    for t in probe.places:
        z = torch.tensor(-2 * (-4 * eps * t)).double()
        p = z.sigmoid()
        expected = {
            "loss": nn.functional.softplus(z),
            "gradient_l1": 4 * 2 * p,
            "hessian_norm": 4 * 4 * p * (1 - p),
            "normalised_curvature": 4 * (1 - p),
        }
        assert at(found, f"{t:g}") == pytest.approx({name: value.item() for name, value in expected.items()})


def test_where_no_image_has_a_gradient_no_normalised_curvature_is_told(labels, images, keys):
    class Constant(nn.Module):
        def forward(self, x):
            return (0 * x.flatten(1)[:, :5]).square()

    found = dict(Interpolation(FGSM(Linf(0.1)), points=1)(Constant(), [Batch(images, labels, keys)]))
    assert "normalised_curvature_at_0" not in found
    assert found["gradient_l1_at_0"] == found["hessian_norm_at_2"] == 0


def test_a_line_without_length_or_points_is_refused(small_net):
    with pytest.raises(ValueError, match="points=0 must be at least 1"):
        Interpolation(ATTACK, points=0)
    with pytest.raises(ValueError, match="reach=0 must be above 0"):
        Interpolation(ATTACK, reach=0)
    with pytest.raises(ValueError, match="no examples to measure loss on"):
        dict(Interpolation(ATTACK)(small_net(), []))

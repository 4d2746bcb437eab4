"""Adversarial training: which images it trains on, and what it leaves alone."""

import pytest
import torch
from torch import Tensor, nn

from trainers import losses
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.ramp import Ramp
from trainers.threat import L2, Linf

LAST = PGD(Linf(0.1), steps=2, keep="last")


class Seen(nn.Module):
    """Remembers the images it was shown with gradients to its parameters on: those it trains on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, []

    def forward(self, x: Tensor) -> Tensor:
        if all(p.requires_grad for p in self.model.parameters()):
            self.images.append(x.detach())
        return self.model(x)


def test_it_trains_on_the_attacks_images(small_net, images, labels, keys):
    model = small_net()
    loss, metrics = AdversarialTraining(LAST)(model, images, labels, keys)
    logits = model(LAST.maximise(model, images, lambda z: losses.cross_entropy(z, labels), keys))
    torch.testing.assert_close(loss, losses.cross_entropy(logits, labels).mean())
    assert metrics["adversarial_accuracy"] == (logits.argmax(1) == labels).float().mean()


def test_the_attack_climbs_the_loss_that_is_trained(small_net, images, soft_labels, keys):
    model, seen = small_net(), Seen(small_net())
    AdversarialTraining(LAST, smoothing=0.3)(seen, images, soft_labels, keys)
    expected = LAST.maximise(model, images, lambda z: losses.cross_entropy(z, soft_labels, 0.3), keys)
    torch.testing.assert_close(seen.images[0], expected)


def test_clean_share_leaves_that_share_alone_keyed_by_the_example(small_net):
    model, n = Seen(small_net()), 400
    x = torch.rand(n, 3, 6, 6, dtype=torch.float64) * 0.6 + 0.2
    y, keys = torch.arange(n) % 5, torch.arange(n) * 3
    objective = AdversarialTraining(FGSM(Linf(0.1)), clean_share=0.3)
    objective(model, x, y, keys)
    objective(model, x[:100], y[:100], keys[:100])
    clean = [(seen == x[: len(seen)]).flatten(1).all(1) for seen in model.images]
    assert 0.2 < clean[0].double().mean() < 0.4
    assert torch.equal(clean[0][:100], clean[1])


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.3)])
def test_warm_ups_grow_from_nothing(small_net, images, labels, keys, threat):
    model = Seen(small_net())
    x = images.clamp(0.1, 0.9)
    warm = Ramp(0.0, 0.5, 1.0)
    objective = AdversarialTraining(PGD(threat, steps=3, step_size=threat.eps), eps_warmup=warm)
    for epoch in (0, 1.0, torch.tensor(1.0), 2, 7):
        objective(model, x, labels, keys, epoch)
    distance = [threat.distance(seen, x).max().item() for seen in model.images]
    assert distance[0] == pytest.approx(0, abs=1e-12)
    assert distance[1] == distance[2] == pytest.approx(threat.eps / 2)
    assert distance[3] == distance[4] == pytest.approx(threat.eps)


def test_step_size_warm_up_is_a_random_perturbation_at_first(small_net, images, labels, keys):
    model = Seen(small_net())
    AdversarialTraining(LAST, step_size_warmup=Ramp())(model, images, labels, keys, 0.0)
    torch.testing.assert_close(
        model.images[0], PGD(Linf(0.1), steps=1, step_size=1e-12, keep="last")(model, images, labels, keys)
    )


def test_batch_statistics_move_once_a_step(small_net, images, labels, keys):
    """The attack runs in eval mode, so BatchNorm follows only the images that are trained on."""
    model = small_net().train()
    before = model[1].num_batches_tracked.item()
    AdversarialTraining(LAST)(model, images, labels, keys)
    assert model[1].num_batches_tracked.item() == before + 1


def test_under_bfloat16_autocast_every_parameter_gets_its_gradient(small_net, images, labels, keys):
    """Autocast caches cast weights: were frozen ones cached, the training forward would lose its graph."""
    model, x = small_net().float(), images.float()
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss, _ = AdversarialTraining(LAST)(model, x, labels, keys)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


@pytest.mark.parametrize("share", [-0.1, 1.0, 2])
def test_a_clean_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"objective.clean_share=.*\[0, 1\)"):
        AdversarialTraining(LAST, clean_share=share)

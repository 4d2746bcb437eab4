"""PGD: what it keeps, what restarts bring, and how it behaves where a loss breaks."""

import math

import pytest
import torch
from torch import Tensor, nn

from trainers import losses, noise
from trainers.attacks.pgd import PGD
from trainers.threat import L2, Linf


class Line(nn.Module):
    """Logits of an image of one pixel ``t``, linear between ``knots: [(t, logits)]``."""

    def __init__(self, knots: list[tuple[float, list[float]]]) -> None:
        super().__init__()
        self.t = torch.tensor([t for t, _ in knots], dtype=torch.float64)
        self.z = torch.tensor([z for _, z in knots], dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        t = x.flatten()
        right = torch.searchsorted(self.t, t.detach(), right=True).clamp(1, len(self.t) - 1)
        t0, t1, z0, z1 = self.t[right - 1], self.t[right], self.z[right - 1], self.z[right]
        return z0 + ((t - t0) / (t1 - t0))[:, None] * (z1 - z0)


def pixel(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def test_best_prefers_a_misclassified_point_to_one_of_higher_loss():
    """At 0.2 class 0 loses with a loss of 0.7, at 0.4 it wins narrowly among three, with a loss of 1.1."""
    model = Line([(0.0, [5.0, 0.0, 0.0]), (0.2, [0.0, 0.05, -3.0]), (0.4, [0.02, 0.0, 0.0]), (1.0, [0.02, 0.0, 0.0])])
    x, y = pixel(0.0), torch.tensor([0])
    attack = PGD(Linf(0.4), steps=2, step_size=0.2, random_start=False)
    x_adv = attack(model, x, y)
    torch.testing.assert_close(x_adv, pixel(0.2))
    assert model(x_adv).argmax(1).item() == 1
    climbed = attack.maximise(model, x, lambda z: losses.cross_entropy(z, y))
    torch.testing.assert_close(climbed, pixel(0.4))


def test_best_is_an_iterate_passed_on_the_way_and_last_is_the_last():
    """A peak between two steps of 0.3: the walk passes 0.3, overshoots to 0.6 and turns back to 0.3."""
    model = Line([(0.0, [3.0, 0.0]), (0.35, [1.0, 0.0]), (0.7, [3.0, 0.0]), (1.0, [4.0, 0.0])])
    kept = {
        keep: PGD(Linf(0.7), steps=2, step_size=0.3, random_start=False, keep=keep)(model, pixel(0), torch.tensor([0]))
        for keep in ("best", "last")
    }
    torch.testing.assert_close(kept["best"], pixel(0.3))
    torch.testing.assert_close(kept["last"], pixel(0.6))


def test_best_is_never_below_last_for_any_example(small_net, images, labels, keys):
    model = small_net()
    reached = {}
    for keep in ("best", "last"):
        x_adv = PGD(Linf(0.3), steps=5, step_size=0.25, keep=keep).maximise(
            model, images, lambda z: losses.cross_entropy(z, labels), keys
        )
        reached[keep] = losses.cross_entropy(model(x_adv), labels)
    assert (reached["best"] >= reached["last"]).all()
    assert (reached["best"] > reached["last"]).any()


def _bumps() -> tuple[Line, Tensor, Tensor, Tensor]:
    """Class 0 loses only in a narrow valley round 0.9; a start elsewhere climbs a harmless hill."""
    model = Line([(0.0, [2.0, 0.0]), (0.4, [1.0, 0.0]), (0.7, [3.0, 0.0]), (0.9, [-1.0, 0.0]), (1.0, [2.0, 0.0])])
    x = pixel(*torch.linspace(0.4, 0.6, 40).tolist())
    return model, x, torch.zeros(40, dtype=torch.int64), torch.arange(40)


def test_restarts_add_successes_and_lose_none():
    """A peer's restarts overwrite every example with the last one (a mask inverted in uint8 is always true)."""
    model, x, y, keys = _bumps()
    won = [
        model(PGD(Linf(0.5), steps=20, step_size=0.02, restarts=r)(model, x, y, keys)).argmax(1) != y for r in (1, 2, 8)
    ]
    assert 0 < won[0].sum() < won[1].sum() < won[2].sum()
    assert won[1][won[0]].all()
    assert won[2][won[1]].all()


def test_restarts_after_a_clean_start_are_random():
    model, x, y, keys = _bumps()
    one = PGD(Linf(0.5), steps=20, step_size=0.02, random_start=False)(model, x, y, keys)
    five = PGD(Linf(0.5), steps=20, step_size=0.02, random_start=False, restarts=5)(model, x, y, keys)
    assert (model(one).argmax(1) != y).sum() == 0
    assert (model(five).argmax(1) != y).sum() > 10


def test_an_iterate_whose_loss_is_not_a_number_is_never_kept():
    class Cliff(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            t = x.flatten()
            return torch.stack([2 + (0.55 - t).sqrt(), torch.zeros_like(t)], 1)

    x, y = pixel(0.3, 0.5), torch.zeros(2, dtype=torch.int64)
    attack = PGD(Linf(0.2), steps=4, step_size=0.1, random_start=False)
    torch.testing.assert_close(attack(Cliff(), x, y), pixel(0.5, 0.5))


def test_a_flat_loss_gives_a_point_of_the_ball():
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] * 0

    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    for threat in (Linf(0.1), L2(0.1)):
        x_adv = PGD(threat, steps=3)(Flat(), x, y, torch.arange(3))
        assert x_adv.isfinite().all()
        assert (threat.distance(x_adv, x) <= 0.1 * (1 + 1e-6)).all()
        assert torch.equal(PGD(threat, steps=3, random_start=False)(Flat(), x, y), x)


def test_targeted_goes_to_the_class_it_is_given(small_net, images, labels, keys):
    model = small_net()
    target = (model(images).argmax(1) + 1) % 5
    x_adv = PGD(Linf(0.3), steps=20, targeted=True, restarts=2)(model, images, target, keys)
    before, after = (losses.cross_entropy(model(z), target) for z in (images, x_adv))
    assert (after < before).all()
    assert (model(x_adv).argmax(1) == target).float().mean() > 0.5


def test_targeted_cannot_climb_an_objectives_loss(small_net, images):
    with pytest.raises(ValueError, match=r"attack.targeted=true"):
        PGD(Linf(0.1), targeted=True).maximise(small_net(), images, lambda z: z.sum(1))


def test_soft_targets_are_climbed_and_kept_per_example(small_net, images, soft_labels, keys):
    model, attack = small_net(), PGD(Linf(0.2), steps=4, step_size=0.15)
    whole = attack(model, images, soft_labels, keys)
    assert (losses.cross_entropy(model(whole), soft_labels) > losses.cross_entropy(model(images), soft_labels)).all()
    for i in range(8):
        alone = attack(model, images[i : i + 1], soft_labels[i : i + 1], keys[i : i + 1])
        torch.testing.assert_close(alone, whole[i : i + 1])


def test_a_step_size_left_out_is_two_and_a_half_eps_over_steps_and_follows_a_warm_up(small_net, images, labels, keys):
    model = small_net()
    given, left_out = PGD(Linf(0.1), steps=5, step_size=0.05), PGD(Linf(0.1), steps=5)
    assert torch.equal(given(model, images, labels, keys), left_out(model, images, labels, keys))

    def loss(logits):
        return losses.cross_entropy(logits, labels)

    halved = PGD(Linf(0.05), steps=5).maximise(model, images, loss, keys)
    assert torch.equal(left_out.maximise(model, images, loss, keys, warmup=(0.5, 1.0)), halved)


@pytest.mark.parametrize(("keep", "restarts", "forwards"), [("last", 1, 4), ("best", 1, 5), ("best", 3, 15)])
def test_forwards_are_those_promised(small_net, images, labels, keep, restarts, forwards):
    model, seen = small_net(), []
    model.register_forward_hook(lambda *_: seen.append(1))
    PGD(Linf(0.1), steps=4, keep=keep, restarts=restarts)(model, images, labels)
    assert len(seen) == forwards


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_may_have_turned_gradients_off(small_net, images, labels, keys, context):
    model, attack = small_net(), PGD(L2(0.5), steps=3)
    expected = attack(model, images, labels, keys)
    with context():
        x_adv = attack(model, images.clone(), labels.clone(), keys.clone())
    torch.testing.assert_close(x_adv, expected)


def test_images_keep_their_dtype_under_bfloat16_autocast(small_net, images, labels, keys):
    model, attack = small_net().float(), PGD(Linf(0.2), steps=3)
    with torch.autocast("cpu", torch.bfloat16):
        x_adv = attack(model, images.float(), labels, keys)
    assert x_adv.dtype == torch.float32
    assert (Linf(0.2).distance(x_adv, images.float()) <= 0.2 + 1e-6).all()
    before, after = (losses.cross_entropy(model(z), labels) for z in (images.float(), x_adv))
    assert (after > before).all()


def test_images_that_ask_for_a_gradient_give_examples_that_do_not(small_net, images, labels):
    assert not PGD(Linf(0.1), steps=1, keep="last")(small_net(), images.requires_grad_(), labels).requires_grad


def test_without_keys_the_global_generator_decides(small_net, images, labels):
    model, attack = small_net(), PGD(Linf(0.2), steps=1, keep="last")
    torch.manual_seed(5)
    first, second = attack(model, images, labels), attack(model, images, labels)
    torch.manual_seed(5)
    assert torch.equal(attack(model, images, labels), first)
    assert not torch.equal(first, second)


def test_the_start_is_keyed_by_the_restart(images, labels, keys):
    """On a flat loss with ``keep="last"`` the result is the last restart's start."""

    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] * 0

    threat, labels = Linf(0.2), labels % 2
    x_adv = PGD(threat, steps=1, restarts=3, keep="last")(Flat(), images, labels, keys)
    torch.testing.assert_close(x_adv, threat.random_start(images, noise.stream(keys, 2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "attack.steps=0"),
        ({"restarts": 0}, "attack.restarts=0"),
        ({"keep": "first"}, "attack.keep='first'"),
        ({"step_size": 0.0}, "attack.step_size=0"),
        ({"step_size": math.nan}, "attack.step_size=nan"),
        ({"model_mode": "evaluate"}, "attack.model_mode='evaluate'"),
    ],
)
def test_wrong_settings_are_named_when_building(settings, message):
    with pytest.raises(ValueError, match=message):
        PGD(Linf(0.1), **settings)

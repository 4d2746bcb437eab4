"""Gradient regularisation against 2409.20139's formula, independent automatic and numeric derivatives."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.attacks.pgd import PGD
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.penalties.gradient_norm import GradientNorm
from trainers.ramp import Ramp
from trainers.threat import L2, Linf

GRADNORM = GradientRegularized(GradientNorm(Linf(0.1)))


def _by_hand(model: nn.Module, x: Tensor, y: Tensor, eps: float, p: int, smoothing: float = 0.0, alpha: float = 1.0):
    """``0.8 CE + 1.2 α eps mean_i ||∇_{x_i} CE_i||_p`` by ``autograd.grad(create_graph=True)`` of the batch mean,
    multiplied by the batch size as the authors' code does."""
    x = x.clone().requires_grad_()
    ce = F.cross_entropy(model(x), y, label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(ce, x, create_graph=True)
    norms = (len(x) * gradient).flatten(1).norm(p=p, dim=1)
    return 0.8 * ce + 1.2 * alpha * eps * norms.mean()


def _gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize(("threat", "p"), [(Linf(0.1), 1), (L2(0.7), 2)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_parameter_gradients_are_the_published_ones(
    small_net, images, labels, soft_labels, threat, p, soft, smoothing
):
    model, y = small_net(), soft_labels if soft else labels
    loss, metrics = GradientRegularized(GradientNorm(threat), smoothing=smoothing)(model, images, y)
    expected = _by_hand(model, images, y, threat.eps, p, smoothing)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(_gradients(loss, model), _gradients(expected, model))
    torch.testing.assert_close(0.8 * metrics["cross_entropy"] + 1.2 * metrics["penalty"], loss.detach())


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.7)])
def test_parameter_gradients_are_numeric_derivatives(small_net, images, labels, threat):
    """Along a random direction in parameter space; 1e-6 apart, no absolute value changes its branch."""
    model, objective, h = small_net(), GradientRegularized(GradientNorm(threat)), 1e-6
    directions = [torch.randn_like(p) for p in model.parameters()]
    gradients = _gradients(objective(model, images, labels)[0], model)

    def moved(step: float) -> float:
        other = copy.deepcopy(model)
        for p, d in zip(other.parameters(), directions, strict=True):
            p.data.add_(step * d)
        return objective(other, images, labels)[0].item()

    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()
    assert slope == pytest.approx((moved(h) - moved(-h)) / (2 * h), rel=1e-5)


@pytest.mark.parametrize(("epoch", "alpha"), [(0, 0.0), (2.5, 0.5), (5, 1.0), (math.inf, 1.0)])
def test_the_ramp_is_full_after_five_epochs(small_net, images, labels, epoch, alpha):
    model = small_net()
    expected = _by_hand(model, images, labels, 0.1, 1, alpha=alpha)
    torch.testing.assert_close(GRADNORM(model, images, labels, epoch=epoch)[0], expected)
    torch.testing.assert_close(GRADNORM(model, images, labels, epoch=torch.tensor(epoch))[0], expected)
    if epoch == math.inf:
        assert torch.equal(GRADNORM(model, images, labels)[0], GRADNORM(model, images, labels, epoch=9.0)[0])


def test_the_ramp_may_start_late(small_net, images, labels):
    objective = GradientRegularized(GradientNorm(Linf(0.1)), ramp=Ramp(0.0, 0.5, 1.0, delay=3))
    model = small_net()
    torch.testing.assert_close(
        objective(model, images, labels, epoch=4.0)[0], _by_hand(model, images, labels, 0.1, 1, alpha=0.5)
    )


def test_eight_examples_are_two_times_four(small_net, images, labels):
    model = small_net()
    whole = _gradients(GRADNORM(model, images, labels)[0], model)
    halves = [_gradients(GRADNORM(model, images[s], labels[s])[0] / 2, model) for s in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close([a + b for a, b in zip(*halves, strict=True)], whole)


def test_pixels_or_normalised_input_is_the_same_penalty(small_net, images, labels):
    """The published ``eps / 0.225 · ||∇ wrt (x - mean) / 0.225||_1`` is ``eps · ||∇ wrt x||_1``."""
    network, sigma = small_net(), 0.225

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return self.network((x - 0.45) / sigma)

    ours, _ = GRADNORM(Normalised(), images, labels)
    published = _by_hand(network, (images - 0.45) / sigma, labels, 0.1 / sigma, 1)
    torch.testing.assert_close(ours, published)


def test_batch_statistics_in_train_mode_are_eagers_and_move_once(small_net, images, labels):
    ours = small_net().train()
    eager = copy.deepcopy(ours)
    loss = GradientRegularized(GradientNorm(Linf(0.1)), mode="train")(ours, images, labels)[0]
    expected = _by_hand(eager, images, labels, 0.1, 1)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(_gradients(loss, ours), _gradients(expected, eager))
    assert ours[1].num_batches_tracked == 2
    for name, buffer in eager.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)
    assert not any(b.requires_grad for b in ours.buffers())


def test_a_batch_norm_that_trains_inside_a_network_in_eval_mode_is_updated_too(small_net, images, labels):
    model = small_net()
    model[1].train()
    GRADNORM(model, images, labels)
    assert model[1].num_batches_tracked == 2


def test_frozen_statistics_are_left_alone(small_net, images, labels):
    model = small_net()
    before = copy.deepcopy(dict(model.named_buffers()))
    GRADNORM(model, images, labels)[0].backward()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_tied_weights_collect_both_uses(images, labels):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(108, 108), nn.Linear(108, 108)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(F.gelu(self.first(x.flatten(1))))

    model = Tied().double()
    loss, _ = GRADNORM(model, images, labels)
    expected = _by_hand(model, images, labels, 0.1, 1)
    torch.testing.assert_close(_gradients(loss, model), _gradients(expected, model))


def test_a_network_in_a_container_with_frozen_parameters(small_net, images, labels):
    class Container(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    model = Container(small_net())
    model.inner[0].weight.requires_grad_(False)
    loss, _ = GRADNORM(model, images, labels)
    loss.backward()
    assert model.inner[0].weight.grad is None
    torch.testing.assert_close(loss, _by_hand(model, images, labels, 0.1, 1))


def test_under_bfloat16_autocast_the_gradients_keep_their_direction(small_net, images, labels):
    model, x = small_net().float(), images.float()
    exact = _gradients(GRADNORM(model, x, labels)[0], model)
    with torch.autocast("cpu", torch.bfloat16):
        GRADNORM(model, x, labels)
        loss, _ = GRADNORM(model, x, labels)
    rough = _gradients(loss, model)
    flat = [torch.cat([g.flatten() for g in gs]) for gs in (exact, rough)]
    assert loss.dtype == torch.float32
    assert torch.cosine_similarity(*flat, dim=0) > 0.99


def test_a_vanished_loss_leaves_finite_gradients(small_net, images):
    """One example so sure that its float32 gradient is exactly zero: the L2 norm has no slope there."""
    model = small_net().float()
    model[-1].weight.data.zero_()
    model[-1].bias.data.copy_(torch.tensor([500.0, 0, 0, 0, 0]))
    loss, _ = GradientRegularized(GradientNorm(L2(0.5)))(model, images.float(), torch.zeros(8, dtype=torch.int64))
    assert loss == 0
    assert all(g.isfinite().all() for g in _gradients(loss, model))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_traced_as_one_graph_the_gradients_are_eagers(small_net, images, labels, mode):
    """Tracing and differentiating the graph, where a gradient of a gradient is lost; without generating code."""

    class Loss(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor, y: Tensor, epoch: Tensor) -> Tensor:
            return GRADNORM(self.model, x, y, epoch=epoch)[0]

    model = small_net().train(mode == "train")
    twin, epoch = copy.deepcopy(model), torch.tensor(2.5)
    expected = _gradients(GRADNORM(twin, images, labels, epoch=epoch)[0], twin)
    compiled = torch.compile(Loss(model), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(_gradients(compiled(images, labels, epoch), model), expected)
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))


@pytest.mark.parametrize("name", ["weight", "loss_weight"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_weights_below_zero_are_refused(name, value):
    with pytest.raises(ValueError, match=f"objective.{name}="):
        GradientRegularized(GradientNorm(Linf(0.1)), **{name: value})


def test_at_a_threat_the_loss_is_that_of_a_random_point(small_net, images, labels, keys):
    model, threat = small_net(), Linf(0.05)
    found, _ = GradientRegularized(GradientNorm(Linf(0.1)), at=threat)(model, images, labels, keys)
    moved, _ = GRADNORM(model, threat.random_start(images, keys), labels)
    torch.testing.assert_close(found, moved)
    assert not torch.equal(found, GRADNORM(model, images, labels)[0])


def test_at_an_attack_the_loss_is_that_of_the_adversarial_point(small_net, images, labels, keys):
    """2409.20139's combined loss: no parameter is reached through the attack."""
    model, attack = small_net(), PGD(Linf(0.05), steps=3, keep="last")
    found, _ = GradientRegularized(GradientNorm(Linf(0.1)), at=attack)(model, images, labels, keys)
    moved, _ = GRADNORM(model, attack(model, images, labels, keys), labels)
    torch.testing.assert_close(found, moved)
    torch.testing.assert_close(_gradients(found, model), _gradients(moved, model))

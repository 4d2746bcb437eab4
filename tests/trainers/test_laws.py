"""Laws that every attack, objective, penalty and activation keeps.

A choice is registered by existing: whatever dataclass with ``__call__`` (or activation module) a file of these
packages defines is tested here, without being named.
"""

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import trainers.activations
import trainers.attacks
import trainers.objectives
import trainers.penalties
from trainers import edges, losses
from trainers import ramp as ramps
from trainers import threat as threats
from trainers.activations.surrogate import SurrogateReLU
from trainers.attacks.apgd import APGD
from trainers.attacks.fab import FAB
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.attacks.square import Square
from trainers.objectives.edge_regularized import EdgeRegularized
from trainers.objectives.finite_difference import FiniteDifference
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.penalties.gradient_norm import GradientNorm
from trainers.threat import L1, L2, Linf, Threat

THREATS: list[Threat] = [Linf(0.1), L2(0.4), L1(0.45)]


def registered(package) -> Iterator[type]:
    """Every public class that a module of ``package`` defines itself."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for name, thing in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(thing) and thing.__module__ == module.name and not name.startswith("_"):
                yield thing


def concepts(package) -> list[type]:
    """Dataclasses that are called, by a method of their own or one they inherit."""
    called = [kind for kind in registered(package) if any("__call__" in vars(base) for base in kind.__mro__)]
    return [kind for kind in called if dataclasses.is_dataclass(kind)]


def build(kind: type, threat: Threat, **settings):
    """A ``kind`` with its defaults, and an answer to every setting that has none."""
    answers = {"threat": threat, "attack": PGD(threat, steps=3), "penalty": GradientNorm(threat)}
    answers["members"] = (PGD(threat, steps=3), Square(threat, queries=20))
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            assert field.name in answers, f"{kind.__name__}.{field.name} has no default: give it an answer here"
            settings.setdefault(field.name, answers[field.name])
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in settings.items() if name in known})


ATTACKS = [build(kind, t, queries=60, steps=20) for kind in concepts(trainers.attacks) for t in THREATS]
ATTACKS += [APGD(t, "targeted_dlr", steps=20) for t in THREATS] + [FAB(t, targets=0, restarts=2) for t in THREATS]
ATTACKS += [APGD(L1(2.0), loss, steps=20, larger_eps=True) for loss in ("ce", "targeted_dlr")]
ATTACKS += [FGSM(t, random_start=True) for t in THREATS] + [PGD(t, steps=3, restarts=2, keep="last") for t in THREATS]
OBJECTIVES = [build(kind, t) for kind in concepts(trainers.objectives) for t in THREATS]
OBJECTIVES += [GradientRegularized(GradientNorm(t), at=at) for t in THREATS for at in (t, PGD(t, steps=2, keep="last"))]
OBJECTIVES += [EdgeRegularized(of=of, saliency=saliency) for of in ("relaxed", "loss") for saliency in (False, True)]
OBJECTIVES += [FiniteDifference(t, squared=True) for t in THREATS]
OBJECTIVES += [
    build(kind, t, attack=FGSM(t, random_start=True))
    for kind in concepts(trainers.objectives)
    if "FGSM" in str(kind.__annotations__.get("attack", ""))
    for t in THREATS
]
PENALTIES = [build(kind, t) for kind in concepts(trainers.penalties) for t in THREATS]
ACTIVATIONS = [kind for kind in registered(trainers.activations) if issubclass(kind, nn.Module)]
ACTIVATIONS.remove(SurrogateReLU)  # its backward pass is another function's

each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=repr)
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)


def test_the_packages_are_not_empty():
    assert {"FGSM", "PGD", "APGD", "FAB", "Square", "MALT", "Cascade"} <= {type(a).__name__ for a in ATTACKS}
    assert {"Standard", "AdversarialTraining", "TRADES", "MART", "GradientRegularized"} <= {
        type(o).__name__ for o in OBJECTIVES
    }
    assert len(ACTIVATIONS) >= 8


def test_every_objective_is_a_choice_of_the_configs():
    folder = Path(__file__).parents[2] / "pipelines" / "configs" / "objective"
    if not folder.is_dir():
        pytest.skip("trainers stands alone here, without the configs of pipelines")
    named = {t for file in folder.glob("*.yaml") for t in re.findall(r"_target_: *(\S+)", file.read_text())}
    assert {f"{kind.__module__}.{kind.__name__}" for kind in concepts(trainers.objectives)} <= named


@pytest.mark.parametrize("thing", ATTACKS + OBJECTIVES + PENALTIES, ids=repr)
def test_a_concept_is_a_value(thing):
    """Pickles, compares, hashes, cannot be changed, and prints as the call that builds it."""
    assert pickle.loads(pickle.dumps(thing)) == thing == copy.deepcopy(thing)
    assert len({thing, copy.deepcopy(thing)}) == 1
    names = {k.__name__: k for p in (trainers.attacks, trainers.objectives, trainers.penalties) for k in concepts(p)}
    assert eval(repr(thing), {**names, **vars(threats), **vars(ramps), **vars(edges)}) == thing
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, dataclasses.fields(thing)[0].name, None)


@each_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_attack_stays_inside_the_threat_and_the_image(attack, small_net, images, labels, keys, dtype):
    x = images.to(dtype)
    x_adv = attack(small_net().to(dtype), x, labels, keys)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == dtype
    assert (attack.threat.distance(x_adv, x) <= attack.threat.eps * (1 + 1e-5)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert not x_adv.requires_grad


@each_attack
def test_an_attack_raises_the_loss_or_says_that_it_could_not(attack, small_net, images, labels, keys):
    model = small_net()
    x_adv = attack(model, images, labels, keys)
    before, after = (losses.cross_entropy(model(z), labels) for z in (images, x_adv))
    fooled = (model(images).argmax(1) == labels) & (model(x_adv).argmax(1) != labels)
    if hasattr(attack, "maximise"):
        assert after.mean() > before.mean()
    else:  # a search gives back the image itself unless it is fooled
        assert torch.equal(x_adv[~fooled], images[~fooled])


@each_attack
@pytest.mark.parametrize("fails", [False, True])
def test_an_attack_touches_nothing(attack, small_net, images, labels, keys, fails):
    """Modes, frozen parameters, gradients, buffers, images and the global generator, even when the model raises."""
    model = small_net(dropout=0.5).train()
    model[1].eval()
    model[3].bias.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    if fails:
        model[-1].register_forward_hook(_raise)
    x, before = images.clone(), _everything(model)
    generator = torch.random.get_rng_state()
    try:
        attack(model, x, labels, keys)
    except RuntimeError:
        assert fails
    assert torch.equal(x, images)
    torch.testing.assert_close(_everything(model), before, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), generator)


def _raise(*_) -> None:
    raise RuntimeError("out of memory, say")


def _everything(model: nn.Module) -> list:
    return [
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad.clone() for p in model.parameters()],
        {name: value.clone() for name, value in model.state_dict().items()},
    ]


@each_attack
def test_the_same_keys_give_the_same_example_in_any_batch(attack, small_net, images, labels, keys):
    model, order = small_net(), torch.tensor([5, 0, 7])
    whole = attack(model, images, labels, keys)
    assert torch.equal(attack(model, images, labels, keys), whole)
    torch.testing.assert_close(attack(model, images[order], labels[order], keys[order]), whole[order])


def _linear(slope: Tensor) -> nn.Module:
    """Two classes whose margin is ``<slope, x>``."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(slope.numel(), 2)).double()
    model[1].weight.data.copy_(torch.stack([slope.flatten() / 2, -slope.flatten() / 2]))
    model[1].bias.data.zero_()
    return model


@pytest.mark.parametrize("kind", concepts(trainers.attacks))
@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_on_a_linear_model_the_margin_drops_by_the_dual_norm(kind, threat):
    """``max <slope, δ>`` over the ball is ``eps · ||slope||_*``: no attack does better, gradient attacks reach it."""
    slope = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    model, x = _linear(slope), torch.full((6, 1, 4, 4), 0.5, dtype=torch.float64)
    attack = build(kind, threat, steps=50, step_size=threat.eps, queries=60)
    if getattr(attack, "classes", 2) > 2:
        pytest.skip("its loss is not defined for two classes")
    for y in (torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)):
        logits = model(attack(model, x, y, torch.arange(6))) - model(x)
        drop = (logits[:, 0] - logits[:, 1]) * (2 * y - 1)
        optimum = threat.eps * threat.dual_norm(slope)
        assert (drop <= optimum * (1 + 1e-9)).all()
        if hasattr(attack, "maximise"):
            torch.testing.assert_close(drop, optimum.expand(6), rtol=1e-4, atol=0)


@each_objective
def test_an_objective_gives_a_loss_and_metrics_to_watch(objective, small_net, images, labels, keys):
    model = small_net()
    loss, metrics = objective(model, images, labels, keys)
    assert loss.dim() == 0
    assert torch.equal(metrics["loss"], loss.detach())
    assert all(m.dim() == 0 and not m.requires_grad and m.isfinite() for m in metrics.values())
    assert objective.mode in ("train", "eval")
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, list(model.parameters())))


@each_objective
def test_an_objective_touches_nothing(objective, small_net, images, labels, keys):
    model, x = small_net(dropout=0.5), images.clone()
    model[5].train()
    model[3].bias.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    before = _everything(model)
    objective(model, x, labels, keys)
    assert torch.equal(x, images)
    torch.testing.assert_close(_everything(model), before, rtol=0, atol=0)


@each_objective
def test_an_objective_is_the_mean_of_its_examples(objective, small_net, images, labels, keys):
    """In eval mode: in any order, and as 8 or 2×4, in loss and in gradients."""
    model = small_net()

    def step(rows: Tensor) -> tuple:
        loss, _ = objective(model, images[rows], labels[rows], keys[rows], 3.0)
        return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))

    rows = torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])
    whole, halves = step(torch.arange(8)), [step(rows[:4]), step(rows[4:])]
    mean = tuple((a + b) / 2 for a, b in zip(halves[0][1], halves[1][1], strict=True))
    torch.testing.assert_close(((halves[0][0] + halves[1][0]) / 2, mean), whole)


@each_objective
@pytest.mark.parametrize("soft", [False, True])
def test_an_objective_falls_when_descended(objective, small_net, images, labels, soft_labels, keys, soft):
    model, y = small_net(), soft_labels if soft else labels
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    first = objective(model, images, y, keys)[0]
    first.backward()
    optimizer.step()
    assert objective(model, images, y, keys)[0] < first


class _Straight(torch.autograd.Function):
    """tanh, whose slope is a constant to whoever differentiates it again."""

    @staticmethod
    def forward(x):
        return x.tanh()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 - ctx.saved_tensors[0].detach() ** 2)


class _StraightTanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Straight.apply(x)


@each_objective
def test_an_objective_says_truly_whether_it_differentiates_twice(objective, small_net, images, labels, keys):
    """Only then does it matter whether the activation has a second derivative."""
    gradients = []
    for activation in (nn.Tanh, _StraightTanh):
        model = small_net(activation=activation)
        gradients.append(torch.autograd.grad(objective(model, images, labels, keys)[0], list(model.parameters())))
    same = all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))
    assert same != objective.second_order


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_a_penalty_costs_each_example_by_itself(penalty, images):
    gradient = torch.randn_like(images)
    cost = penalty(gradient, images)
    assert cost.shape == (8,)
    assert (cost >= 0).all()
    torch.testing.assert_close(penalty(gradient[2:5], images[2:5]), cost[2:5])
    assert torch.autograd.gradcheck(partial(penalty, x=images[:2]), (gradient[:2].requires_grad_(),))


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_an_activation_has_the_derivatives_a_gradient_penalty_needs(kind):
    """First and second derivatives are the numeric ones, the second one is not zero, and it pickles."""
    activation = pickle.loads(pickle.dumps(kind())).double()
    x = torch.linspace(-3, 3, 30, dtype=torch.float64).requires_grad_()  # 30 points: none at 0, where some have a kink
    assert torch.autograd.gradcheck(activation, (x,))
    assert torch.autograd.gradgradcheck(activation, (x,))
    (slope,) = torch.autograd.grad(activation(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert bend.abs().max() > 0.01

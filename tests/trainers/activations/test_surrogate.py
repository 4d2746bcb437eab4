"""ReLU forward, smooth backward: bit for bit the one, and the other only where it is switched on."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainers import models
from trainers.activations.replace import make, replace
from trainers.activations.smooth import ParametricSoftplus
from trainers.activations.surrogate import SurrogateReLU
from trainers.attacks.pgd import PGD
from trainers.modes import frozen, input_gradient
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.penalties.gradient_norm import GradientNorm
from trainers.threat import Linf

SWITCHES = [(False, False), (False, True), (True, False), (True, True)]
each = pytest.mark.parametrize(("inner", "outer"), SWITCHES)


def surrogate(small_net, inner: bool, outer: bool) -> nn.Module:
    model = small_net(activation=nn.ReLU)
    assert replace(model, "surrogate_relu", inner=inner, outer=outer) == 2
    return model


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_forward_pass_is_relus_bit_for_bit(inner, outer, dtype):
    x = torch.cat([torch.randn(1000), torch.tensor([0.0, -0.0, torch.inf, -torch.inf])]).to(dtype)
    module = SurrogateReLU(inner=inner, outer=outer)
    assert torch.equal(module(x), torch.relu(x))
    with frozen(module):
        assert torch.equal(module(x), torch.relu(x))


def test_the_backward_pass_is_parametric_softplus():
    x = torch.randn(100, dtype=torch.float64, requires_grad=True)
    ours, theirs = (torch.autograd.grad(f(x).sum(), x)[0] for f in (SurrogateReLU(), ParametricSoftplus()))
    torch.testing.assert_close(ours, theirs)


@each
def test_the_attackers_gradient_changes_only_with_inner(small_net, images, labels, inner, outer):
    def gradient(model: nn.Module):
        with frozen(model):
            return input_gradient(model, images, lambda z: F.cross_entropy(z, labels, reduction="none"))[0]

    same = torch.equal(gradient(surrogate(small_net, inner, outer)), gradient(small_net(activation=nn.ReLU)))
    assert same != inner


@each
def test_the_parameters_gradient_changes_only_with_outer(small_net, images, labels, inner, outer):
    def gradients(model: nn.Module):
        return torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))

    found, plain = gradients(surrogate(small_net, inner, outer)), gradients(small_net(activation=nn.ReLU))
    assert all(map(torch.equal, found, plain)) != outer


@each
def test_adversarial_training_takes_either_from_its_place(small_net, images, labels, keys, inner, outer):
    """The attack's images move with ``inner``; at the same images the parameters' gradient moves with ``outer``."""
    attack = PGD(Linf(0.1), steps=3, keep="last")
    model, plain = surrogate(small_net, inner, outer), small_net(activation=nn.ReLU)
    found, expected = attack(model, images, labels, keys), attack(plain, images, labels, keys)
    assert torch.equal(found, expected) != inner
    losses = [AdversarialTraining(attack)(each, images, labels, keys)[0] for each in (model, plain)]
    assert torch.equal(*losses) != inner
    assert not any(module.attacked for module in model.modules() if isinstance(module, SurrogateReLU))


def test_after_an_attack_that_fails_the_parameters_see_their_own_gradient_again(small_net, images, labels):
    model = surrogate(small_net, True, False)
    with pytest.raises(RuntimeError), frozen(model):
        raise RuntimeError
    assert not any(getattr(module, "attacked", False) for module in model.modules())


def test_a_gradient_penalty_bends_where_relu_does_not(small_net, images, labels):
    """``f'' = α σ (1 - σ)``: a first-layer bias moves the penalty."""

    def slope(model: nn.Module) -> float:
        losses = [GradientRegularized(GradientNorm(Linf(0.1)), weight=w)(model, images, labels)[0] for w in (1.0, 0.0)]
        biases = [torch.autograd.grad(loss, model[0].bias)[0] for loss in losses]
        return (biases[0] - biases[1]).abs().max().item()

    def build(name: str) -> nn.Module:
        model = small_net(activation=nn.ReLU, norm=False)
        model[-1] = nn.Linear(36, 1).double()  # the gradient of a logit: CE's own bend would be seen, too
        replace(model, name)
        return model

    def logit_penalty(model: nn.Module) -> float:
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (found,) = torch.autograd.grad(gradient.abs().sum(), model[0].bias, allow_unused=True, materialize_grads=True)
        return found.abs().max().item()

    assert logit_penalty(build("relu")) == 0
    assert logit_penalty(build("surrogate_relu")) > 1e-3
    assert slope(surrogate(small_net, True, True)) > 0


def test_networks_are_made_with_it():
    """Also a small one for 8x8 images, whose forward is tried and searched for a ReLU that escaped."""
    model = models.create("holdfast_resnet", 10, (1, 8, 8), activation={"name": "surrogate_relu", "inner": False})
    assert sum(isinstance(module, SurrogateReLU) for module in model.modules()) == 7


def test_it_copies_and_pickles():
    module = make("surrogate_relu", alpha=7.0, inner=False)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module) == "SurrogateReLU(alpha=7, inner=False, outer=True)"


def test_an_alpha_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"alpha=0 must be a number above 0 for surrogate_relu"):
        make("surrogate_relu", alpha=0)

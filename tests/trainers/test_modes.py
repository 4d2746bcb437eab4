"""Modes and frozen parameters come back, whatever happens inside; input gradients are each example's own."""

from functools import partial

import pytest
import torch
from torch import nn

from trainers import losses, modes


class BoomError(Exception):
    pass


@pytest.fixture
def mixed() -> nn.Module:
    """A network of modules in different modes, some of whose parameters were frozen before."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_mode_sets_every_module_and_restores_each(mixed, train, fails):
    before = [m.training for m in mixed.modules()]
    try:
        with modes.mode(mixed, train):
            assert all(m.training == train for m in mixed.modules())
            if fails:
                raise BoomError
    except BoomError:
        pass
    assert [m.training for m in mixed.modules()] == before == [True, True, False, True, True]


@pytest.mark.parametrize("fails", [True, False])
def test_frozen_gives_back_what_was_live_and_only_that(mixed, fails):
    try:
        with modes.frozen(mixed):
            assert not any(p.requires_grad for p in mixed.parameters())
            if fails:
                raise BoomError
    except BoomError:
        pass
    assert [n for n, p in mixed.named_parameters() if not p.requires_grad] == ["0.weight"]


def test_check_names_the_setting():
    modes.check("objective.mode", "train")
    with pytest.raises(ValueError, match=r"objective.mode='Eval' must be 'train' or 'eval'"):
        modes.check("objective.mode", "Eval")


def test_input_gradient_is_the_numeric_derivative_of_each_example(small_net, images, labels):
    model, h = small_net(), 1e-6
    gradient, values, logits = modes.input_gradient(model, images, partial(losses.cross_entropy, y=labels))
    direction = torch.randn_like(images)
    with torch.no_grad():
        up = losses.cross_entropy(model(images + h * direction), labels)
        down = losses.cross_entropy(model(images - h * direction), labels)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), (up - down) / (2 * h), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(logits, model(images).detach())
    torch.testing.assert_close(values, losses.cross_entropy(logits, labels))
    one, _, _ = modes.input_gradient(model, images[3:4], partial(losses.cross_entropy, y=labels[3:4]))
    torch.testing.assert_close(one[0], gradient[3])


def test_input_gradient_leaves_x_and_parameters_without_grad(small_net, images, labels):
    model = small_net()
    images.requires_grad_()
    with modes.frozen(model):
        gradient, values, logits = modes.input_gradient(model, images, partial(losses.cross_entropy, y=labels))
    assert images.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert not any(t.requires_grad for t in (gradient, values, logits))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_input_gradient_works_for_callers_that_turned_gradients_off(small_net, images, labels, context):
    model = small_net()
    expected, _, _ = modes.input_gradient(model, images, partial(losses.cross_entropy, y=labels))
    with context():
        x, y = images.clone(), labels.clone()
        y = modes.outside_inference(y)
        gradient, _, _ = modes.input_gradient(model, x, partial(losses.cross_entropy, y=y))
    torch.testing.assert_close(gradient, expected)

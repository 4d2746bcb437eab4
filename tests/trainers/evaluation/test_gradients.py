"""Gradient norms against a gradient taken one example at a time."""

import pytest
import torch
import torch.nn.functional as F

from trainers.evaluation.gradients import GradientNorms
from trainers.types import Batch


def _one_by_one(model, x, y):
    rows = []
    for i in range(len(x)):
        image = x[i : i + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(image), y[i : i + 1]), image)
        rows.append([gradient.abs().sum(), (gradient**2).sum().sqrt()])
    return torch.tensor(rows, dtype=torch.float64)


def test_each_examples_norms_and_their_means(small_net, images, labels, keys):
    model = small_net()
    expected = _one_by_one(model, images, labels)
    batches = [Batch(images[:3], labels[:3], keys[:3]), Batch(images[3:], labels[3:], keys[3:])]
    seen, norms = GradientNorms().norms(model, batches)
    assert torch.equal(seen, keys)
    torch.testing.assert_close(norms, expected)
    measured = dict(GradientNorms()(model, batches))
    assert measured == pytest.approx(
        {"gradient_l1": expected[:, 0].mean().item(), "gradient_l2": expected[:, 1].mean().item()}
    )


def test_pixel_units_whatever_the_network_does_first(small_net, images, labels, keys):
    """A network that divides its input by 0.5 is twice as steep in the pixels."""
    inner, batch = small_net(), Batch(images, labels, keys)

    class Divided(torch.nn.Module):
        def forward(self, x):
            return inner(x / 0.5)

    steep = dict(GradientNorms()(Divided(), [batch]))
    flat = dict(GradientNorms()(inner, [batch._replace(x=images / 0.5)]))
    assert steep == pytest.approx({name: 2 * value for name, value in flat.items()})


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_may_have_turned_gradients_off(small_net, images, labels, keys, context):
    model = small_net()
    expected = dict(GradientNorms()(model, [Batch(images, labels, keys)]))
    with context():
        batch = Batch(images.clone(), labels.clone(), keys.clone())
        assert dict(GradientNorms()(model, [batch])) == pytest.approx(expected)


def test_the_network_is_given_back_as_it_was(small_net, images, labels, keys):
    model = small_net(dropout=0.5).train()
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = dict(GradientNorms()(model, [Batch(images, labels, keys)]))
    assert all(m.training for m in model.modules())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["0.bias"]
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert dict(GradientNorms()(model, [Batch(images, labels, keys)])) == first


def test_no_examples_have_no_gradient(small_net):
    with pytest.raises(ValueError, match="no examples"):
        list(GradientNorms()(small_net(), []))

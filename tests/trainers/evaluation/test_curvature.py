"""Curvature against known eigenvalues, and against Hessians written out."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainers.evaluation.curvature import Curvature
from trainers.types import Batch

SIZE = (3, 2, 2)


def rotation():
    return torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)).double())[0]


class Quadratic(nn.Module):
    """The one logit ``½ x·A x + b·x`` with ``A = Q diag(eigenvalues) Qᵀ``."""

    def __init__(self, eigenvalues, slope=0.0):
        super().__init__()
        turned = rotation()
        self.curve = turned @ torch.diag(torch.tensor(eigenvalues).double()) @ turned.T
        self.slope = slope * turned[:, 0]

    def forward(self, x):
        x = x.flatten(1)
        return (x @ self.curve * x).sum(1, keepdim=True) / 2 + (x @ self.slope)[:, None]


def only(logits):
    return logits[:, 0]


def measured(model, x, keys, steps=20):
    return Curvature(steps).measure(model, x, only, keys)


@pytest.fixture
def points():
    return torch.rand(5, *SIZE, generator=torch.Generator().manual_seed(3)).double()


@pytest.mark.parametrize("largest", [[7.0, 2.0], [-7.0, 2.0], [7.0, -7.0], [7.0, 7.0]])
def test_a_quadratic_loss_has_its_largest_eigenvalue_whatever_the_sign(points, largest):
    model = Quadratic([*largest, *[1.0] * 10])
    found = measured(model, points, torch.arange(5))
    torch.testing.assert_close(found[:, 0], torch.full((5,), 7.0).double(), rtol=1e-8, atol=0)
    slope = (points.flatten(1) @ model.curve).norm(dim=1)
    torch.testing.assert_close(found[:, 1], slope)
    torch.testing.assert_close(found[:, 2], 7.0 / slope, rtol=1e-8, atol=0)


def test_too_few_steps_give_too_little_never_too_much(points):
    model = Quadratic([5.0 - 0.1 * k for k in range(12)])
    found = [measured(model, points, torch.arange(5), steps)[:, 0] for steps in (1, 2, 5, 20, 200)]
    for fewer, more in pairwise(found):
        assert (fewer <= more).all()
    assert (found[0] < 4.99).all()
    assert (found[-1] <= 5 + 1e-12).all()
    torch.testing.assert_close(found[-1], torch.full((5,), 5.0).double(), rtol=1e-3, atol=0)


def test_a_linear_loss_has_none(points):
    found = measured(Quadratic([0.0] * 12, slope=3.0), points, torch.arange(5))
    assert torch.equal(found[:, 0], torch.zeros(5).double())
    torch.testing.assert_close(found[:, 1], torch.full((5,), 3.0).double())


def test_cross_entropy_of_a_linear_network_has_the_curvature_of_the_softmax(points):
    """``H = Wᵀ (diag p - p pᵀ) W``."""
    linear = nn.Linear(12, 4).double()
    model, y = nn.Sequential(nn.Flatten(), linear), torch.tensor([0, 1, 2, 3, 0])
    p, w = model(points).softmax(1).detach(), linear.weight.detach()
    expected = torch.stack([torch.linalg.matrix_norm(w.T @ (row.diag() - row.outer(row)) @ w, 2) for row in p])
    _, found = Curvature(100).values(model, [Batch(points, y, torch.arange(5))])
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-6, atol=0)
    slope = ((p - F.one_hot(y, 4)) @ w).norm(dim=1)
    torch.testing.assert_close(found[:, 2], expected / slope, rtol=1e-6, atol=0)


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.ReLU, lambda: nn.ReLU(inplace=True)])
def test_a_network_has_the_norm_of_its_hessian_written_out(small_net, images, labels, keys, activation):
    model, chosen = small_net(activation), slice(0, 3)
    _, found = Curvature(300).values(model, [Batch(images[chosen], labels[chosen], keys[chosen])])
    for row, x, y in zip(found, images[chosen], labels[chosen], strict=True):
        loss = lambda flat, x=x, y=y: F.cross_entropy(model(flat.reshape(1, *x.shape)), y[None])  # noqa: E731
        hessian = torch.autograd.functional.hessian(loss, x.flatten())
        assert row[0] == pytest.approx(torch.linalg.matrix_norm(hessian, 2).item(), rel=1e-3)


def test_it_depends_on_the_example_alone_and_leaves_the_model_as_it_was(small_net, images, labels, keys):
    model = small_net(dropout=0.5).train()
    buffers = [b.clone() for b in model.buffers()]
    together = Curvature(3).values(model, [Batch(images, labels, keys)])
    apart = Curvature(3).values(model, [Batch(images[i : i + 1], labels[i : i + 1], keys[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(together, apart)
    other = Curvature(3, seed=1).values(model, [Batch(images, labels, keys)])
    assert not torch.equal(other[1], together[1])
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_may_have_turned_gradients_off(small_net, images, labels, keys, context):
    model = small_net()
    expected = dict(Curvature(3)(model, [Batch(images, labels, keys)]))
    with context():
        assert dict(Curvature(3)(model, [Batch(images.clone(), labels.clone(), keys)])) == pytest.approx(expected)


class Attention(nn.Module):
    """Calls the kernel whose fused forms have no second derivative."""

    def forward(self, x):
        tokens = x.flatten(2)[:, None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens).sum((1, 3))


def test_attention_is_differentiated_twice_by_its_plain_kernel(images, labels, keys):
    _, found = Curvature(50).values(Attention(), [Batch(images[:1], labels[:1] % 3, keys[:1])])
    loss = lambda flat: F.cross_entropy(Plain()(flat.reshape(1, 3, 6, 6)), labels[:1] % 3)  # noqa: E731
    hessian = torch.autograd.functional.hessian(loss, images[0].flatten())
    assert found[0, 0].item() == pytest.approx(torch.linalg.matrix_norm(hessian, 2).item(), rel=1e-3)


class Plain(nn.Module):
    """``Attention`` from plain matrix products."""

    def forward(self, x):
        tokens = x.flatten(2)
        return ((tokens @ tokens.mT / math.sqrt(36)).softmax(2) @ tokens).sum(2)


class Constant(nn.Module):
    """Sees every image alike, but for those whose first pixel is bright."""

    def forward(self, x):
        score = (x[:, 0, 0, 0] > 0.9) * x.flatten(1).square().sum(1)
        return torch.stack([score, -score], 1)


def test_images_without_a_gradient_have_no_normalised_curvature(images, labels, keys):
    images[:3, 0, 0, 0] = 1.0
    found = dict(Curvature()(Constant(), [Batch(images, labels % 2, keys)]))
    assert found["normalised_curvature_defined"] == 3 / 8
    _, three = Curvature().values(Constant(), [Batch(images[:3], labels[:3] % 2, keys[:3])])
    assert found["normalised_curvature"] == pytest.approx(three[:, 2].mean().item())
    assert found["hessian_norm"] == pytest.approx(three[:, 0].sum().item() / 8)


def test_a_model_that_cuts_the_graph_has_no_curvature_and_says_so(labels, images, keys):
    class Rounded(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :5].round().detach()

    with pytest.raises(ValueError, match="normalised curvature is undefined on every one of 8"):
        dict(Curvature(2)(Rounded(), [Batch(images, labels, keys)]))


def test_a_model_without_a_second_derivative_is_refused(images, labels, keys):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 2 * gradient

    class Model(nn.Module):
        def forward(self, x):
            return Once.apply(x.flatten(1))[:, :5].square()

    with pytest.raises(ValueError, match=r"Model cannot be differentiated twice.*choose"):
        dict(Curvature()(Model(), [Batch(images, labels, keys)]))


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        Curvature(0)

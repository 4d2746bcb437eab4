"""Edge regularisation against 2409.20139's formula, and what it does not depend on."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.edges import EdgeEnergy
from trainers.objectives.edge_regularized import EdgeRegularized, drawn
from trainers.ramp import Ramp


def rms(v: Tensor) -> Tensor:
    return v.square().mean().sqrt()


@pytest.mark.parametrize("whole_batch", [False, True])
@pytest.mark.parametrize("saliency", [False, True])
def test_loss_and_parameter_gradients_are_the_published_ones(small_net, images, labels, whole_batch, saliency):
    """Of the loss, by ``autograd.grad(create_graph=True)``."""
    model, objective = (
        small_net(),
        EdgeRegularized(of="loss", saliency=saliency, rms="batch" if whole_batch else "image"),
    )
    x = images.clone().requires_grad_()
    losses = F.cross_entropy(model(x), labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    edges = EdgeEnergy()(images)
    gradient, edges = (
        (gradient.abs().amax(1, keepdim=True), edges) if saliency else (gradient, edges.expand(-1, 3, 6, 6))
    )
    if whole_batch:
        distance = F.mse_loss(gradient / rms(gradient), edges / rms(edges))
    else:
        pairs = zip(gradient, edges, strict=True)
        distance = torch.stack([F.mse_loss(g / rms(g), e / rms(e)) for g, e in pairs]).mean()
    expected = losses.mean() + 10 * distance
    loss, metrics = objective(model, images, labels, epoch=100.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["edge_distance"], distance.detach())
    parameters = list(model.parameters())
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


def test_the_weight_rises_from_1_by_9_hundredths_an_epoch_to_19(small_net, images, labels, keys):
    model, found = small_net(), []
    for epoch in (0.0, 100.0, 200.0, 300.0):
        loss, metrics = EdgeRegularized()(model, images, labels, keys, epoch)
        found.append(((loss - metrics["cross_entropy"]) / metrics["edge_distance"]).item())
    assert found == pytest.approx([1, 10, 19, 19])


@pytest.mark.parametrize(
    "objective", [EdgeRegularized(rms="image"), EdgeRegularized(rms="batch"), EdgeRegularized(saliency=True)]
)
@pytest.mark.parametrize("scale", [10, 1e-25])
def test_the_scale_of_the_gradient_costs_nothing(objective, images, scale):
    gradient, x = torch.randn(8, 3, 6, 6), images.float()
    torch.testing.assert_close(objective.distance(scale * gradient, x), objective.distance(gradient, x))


def test_the_distance_is_0_along_the_edges_4_against_them_and_2_where_nothing_is_common(images):
    edges, objective = EdgeEnergy()(images).expand_as(images), EdgeRegularized()
    signs = torch.ones_like(edges)
    signs[:, 1] = -1
    signs[:, 2] = 0
    for gradient, distance in ((3 * edges, 0.0), (-edges, 4.0), (signs * edges, 2.0)):
        torch.testing.assert_close(
            objective.distance(gradient, images), torch.full((8,), distance, dtype=torch.float64)
        )


def test_classes_are_drawn_at_the_temperature():
    """A chi-squared statistic of 4 degrees of freedom: above 18.5 once in a thousand."""
    n, temperature, logits = 20_000, 0.5, torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8])
    found = drawn(logits.expand(n, 5), torch.arange(n), temperature)
    counts = torch.stack([(found == logit).sum() for logit in logits])
    expected = n * (logits / temperature).softmax(0)
    assert counts.sum() == n
    assert ((counts - expected).square() / expected).sum() < 18.5


def test_relaxed_weights_are_a_softmax_that_is_held_fixed():
    """So the gradient of the logit with respect to the logits is the weights, which sum to 1."""
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    (weights,) = torch.autograd.grad(drawn(logits, torch.arange(6), 0.5, relaxed=True).sum(), logits)
    torch.testing.assert_close(weights.sum(1), torch.ones(6, dtype=torch.float64))
    assert ((weights > 0) & (weights < 1)).all()
    sharp = drawn(logits, torch.arange(6), 1e-9, relaxed=True)
    torch.testing.assert_close(sharp, drawn(logits, torch.arange(6), 1e-9))


def test_descending_it_turns_the_gradient_towards_the_edges(small_net, images, labels, keys):
    model, objective = small_net(), EdgeRegularized(weight=10.0, ramp=Ramp(1.0, 0.0, 1.0), mode="eval")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first = objective(model, images, labels, keys)[1]["edge_distance"]
    for _ in range(60):
        optimizer.zero_grad()
        objective(model, images, labels, keys)[0].backward()
        optimizer.step()
    assert objective(model, images, labels, keys)[1]["edge_distance"] < first - 0.3


def test_relu_has_a_slope_here_that_its_first_layer_biases_do_not_see(small_net, images, labels, keys):
    """The gradient of a logit does not depend on them, almost everywhere: their derivative of the distance is 0."""

    def slope(activation: type[nn.Module]) -> Tensor:
        model = small_net(activation=activation, norm=False)
        loss, _ = EdgeRegularized(mode="eval", weight=1.0)(model, images, labels, keys, 0.0)
        whole = torch.autograd.grad(loss, model[0].bias)[0]
        alone = torch.autograd.grad(
            EdgeRegularized(mode="eval", weight=0.0)(model, images, labels, keys, 0.0)[0], model[0].bias
        )
        return whole - alone[0]

    assert slope(nn.ReLU).abs().max() < 1e-12
    assert slope(nn.GELU).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("setting", "value"), [("weight", -1.0), ("of", "class"), ("temperature", 0.0), ("rms", "all"), ("smoothing", 1.0)]
)
def test_what_makes_no_sense_is_refused(setting, value):
    with pytest.raises(ValueError, match=rf"objective\.{setting}="):
        EdgeRegularized(**{setting: value})

"""The finite-difference penalty against the one by double back-propagation, and where only it can go."""

import pytest
import torch
from torch import nn

from trainers.objectives.finite_difference import FiniteDifference
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.penalties.gradient_norm import GradientNorm
from trainers.penalties.squared_norm import SquaredNorm
from trainers.threat import L2, Linf


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.7)])
@pytest.mark.parametrize("squared", [False, True])
def test_for_a_small_step_it_is_the_gradient_penalty(small_net, images, labels, threat, squared):
    model = small_net()
    exact = GradientRegularized((SquaredNorm if squared else GradientNorm)(threat), smoothing=0.1)
    by_differences = FiniteDifference(threat, step=1e-6, squared=squared, smoothing=0.1)
    found, expected = (each(model, images, labels)[0] for each in (by_differences, exact))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    parameters = list(model.parameters())
    found, expected = (torch.autograd.grad(loss, parameters) for loss in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("step", [1e-3, 0.1, 3.0])
def test_the_penalty_is_the_growth_of_the_loss_along_the_steepest_direction(small_net, images, labels, step):
    model, threat = small_net(), Linf(0.1)
    x = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(x), labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    there = nn.functional.cross_entropy(model(images + step * gradient.sign()), labels, reduction="none")
    _, metrics = FiniteDifference(threat, step=step)(model, images, labels)
    torch.testing.assert_close(metrics["penalty"], (0.1 * (there - loss) / step).mean().detach())


class Attention(nn.Module):
    """Four patches that look at one another through torch's fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(27, 3 * 16), nn.Linear(16, 5)

    def forward(self, x):
        patches = nn.functional.unfold(x, 3, stride=3).transpose(1, 2)
        q, k, v = self.project(patches).chunk(3, dim=2)
        return self.head(nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0].mean(1))


def test_it_trains_through_fused_attention_where_the_other_cannot(images, labels):
    model, x = Attention(), images.float()
    with pytest.raises(RuntimeError, match=r"not implemented|derivative"):
        GradientRegularized(GradientNorm(Linf(0.1)))(model, x, labels)[0].backward()
    FiniteDifference(Linf(0.1))(model, x, labels)[0].backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_step_sees_relus_bends(small_net, images, labels):
    """A first-layer bias moves the gradient of a ReLU network only by moving its bends."""
    model = small_net(activation=nn.ReLU, norm=False)

    def slope(objective):
        full, without = (
            torch.autograd.grad(each(model, images, labels)[0], model[0].bias)[0]
            for each in (objective(1.0), objective(0.0))
        )
        return (full - without).abs().max()

    assert slope(lambda weight: FiniteDifference(Linf(0.1), weight=weight, step=0.1)) > 1e-3


@pytest.mark.parametrize(
    ("setting", "value"), [("weight", -1.0), ("loss_weight", -1.0), ("step", 0.0), ("smoothing", 2.0)]
)
def test_what_makes_no_sense_is_refused(setting, value):
    with pytest.raises(ValueError, match=rf"objective\.{setting}="):
        FiniteDifference(Linf(0.1), **{setting: value})

"""A convolution that differs from torch's in the cost of its second derivative alone."""

import pytest
import torch
from torch import nn

from trainers.models.convolution import Convolution, convert
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.penalties.gradient_norm import GradientNorm
from trainers.threat import Linf

GEOMETRIES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (3, 1), "stride": (1, 2), "padding": (2, 0)},
    {"kernel_size": 2, "dilation": 2, "groups": 2},
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
]


def pair(**geometry) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A convolution of torch's and ours with its weights."""
    torch.manual_seed(0)
    theirs, ours = (nn.Conv2d(4, 6, **geometry).double() for _ in range(2))
    ours.load_state_dict(theirs.state_dict())
    convert(ours)
    assert type(ours) is Convolution
    return theirs, ours


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_values_and_both_derivatives_are_torch_s(geometry):
    found = []
    for conv in pair(**geometry):
        x = torch.rand(2, 4, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
        y = conv(x)
        (g,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        second = torch.autograd.grad(g.cos().sum() + y.square().sum(), [x, *conv.parameters()])
        found.append([y, g, *second])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_its_derivatives_are_numeric_ones_to_the_second_order():
    _, ours = pair(kernel_size=3, stride=2, padding=1, groups=2)
    x = torch.rand(1, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    torch.autograd.gradcheck(ours, (x,))
    torch.autograd.gradgradcheck(ours, (x,))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3, 2, 1, groups=2), nn.GELU(), nn.Flatten()
        )
        self.head = nn.Linear(8 * 16, 4)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_penalty_has_the_same_gradients_in_either_precision(dtype):
    objective = GradientRegularized(GradientNorm(Linf(0.1)), smoothing=0.1)
    x, y = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 2, 3, 0])
    found = []
    for converts in (False, True):
        torch.manual_seed(0)
        net = Net()
        if converts:
            convert(net)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16, cache_enabled=False):
            loss, _ = objective(net, x, y)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in net.parameters())])
    tolerance = 1e-5 if dtype is torch.float32 else 5e-2
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def test_only_plain_convolutions_are_converted_and_weights_keep_their_names():
    class Other(nn.Conv2d):
        pass

    model = nn.Sequential(nn.Conv2d(1, 1, 1), Other(1, 1, 1), nn.Conv1d(1, 1, 1))
    names = list(model.state_dict())
    convert(model)
    assert [type(m) for m in model] == [Convolution, Other, nn.Conv1d]
    assert list(model.state_dict()) == names

"""Costs in standard steps, against counts of forwards and backwards."""

import copy

import pytest
import torch
from torch import nn

from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.evaluation.cost import standard_steps
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.objectives.standard import Standard
from trainers.objectives.trades import TRADES
from trainers.penalties.gradient_norm import GradientNorm
from trainers.threat import Linf

EPS = Linf(0.1)


class Block(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        conv = [nn.Conv2d(width, width, 3, padding=1, bias=False, groups=groups) for _ in range(2)]
        self.path = nn.Sequential(conv[0], nn.BatchNorm2d(width), nn.GELU(), conv[1], nn.BatchNorm2d(width))
        self.act = nn.GELU()

    def forward(self, x):
        return self.act(x + self.path(x))


def residual(groups: int = 1) -> nn.Module:
    blocks = [Block(16, groups) for _ in range(3)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


X, Y = torch.rand(2, 3, 12, 12), torch.tensor([0, 1])


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(
    ("objective", "low", "high"),
    [
        (lambda mode: Standard(mode=mode), 1, 1),
        (lambda mode: AdversarialTraining(FGSM(EPS), mode=mode), 1.66, 1.72),
        (lambda mode: AdversarialTraining(PGD(EPS, steps=3, keep="last"), mode=mode), 3.0, 3.2),
        (lambda mode: TRADES(PGD(EPS, steps=10, keep="last"), mode=mode), 9.0, 9.5),
        (lambda mode: GradientRegularized(GradientNorm(EPS), mode=mode), 2.0, 2.2),
    ],
    ids=["standard", "fgsm", "pgd3", "trades10", "gradnorm"],
)
def test_the_known_prices(objective, low, high, mode):
    assert low <= standard_steps(objective(mode), residual(), X, Y) <= high


def test_keeping_the_best_iterate_costs_one_more_forward():
    last, best = (AdversarialTraining(PGD(EPS, steps=3, keep=keep)) for keep in ("last", "best"))
    difference = standard_steps(best, residual(), X, Y) - standard_steps(last, residual(), X, Y)
    assert difference == pytest.approx(1 / 3, abs=0.02)


def test_grouped_convolutions_are_counted_rightly():
    """One more PGD step costs two forwards of three; torch's counter prices a weight gradient by the group."""
    one, two = (AdversarialTraining(PGD(EPS, steps=k, keep="last")) for k in (1, 2))
    model = residual(groups=16)
    assert standard_steps(two, model, X, Y) - standard_steps(one, model, X, Y) == pytest.approx(2 / 3, abs=0.1)
    assert 2.0 <= standard_steps(GradientRegularized(GradientNorm(EPS)), model, X, Y) <= 2.3


def test_the_price_does_not_depend_on_the_batch():
    objective, model = GradientRegularized(GradientNorm(EPS)), residual()
    one = standard_steps(objective, model, X[:1], Y[:1])
    assert standard_steps(objective, model, X.repeat(3, 1, 1, 1), Y.repeat(3)) == pytest.approx(one, rel=1e-3)


def test_model_and_random_state_are_left_as_they_were():
    model = residual().train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, generator = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    standard_steps(AdversarialTraining(PGD(EPS, steps=1)), model, X, Y)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert torch.equal(torch.random.get_rng_state(), generator)

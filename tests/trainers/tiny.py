"""What the tests of step, state, loop and ranks share: data, nets and objectives that take milliseconds."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from trainers import noise, optimizers
from trainers.attacks.pgd import PGD
from trainers.loop import Fit
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.edge_regularized import EdgeRegularized
from trainers.objectives.finite_difference import FiniteDifference
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.objectives.locally_linear import LocallyLinear
from trainers.objectives.mart import MART
from trainers.objectives.noisy_single_step import NoisySingleStep
from trainers.objectives.standard import Standard
from trainers.objectives.trades import TRADES
from trainers.optimizers import Cosine
from trainers.penalties.gradient_norm import GradientNorm
from trainers.ramp import CONSTANT
from trainers.state import State
from trainers.threat import Linf
from trainers.types import Batch

CLASSES, SHAPE = 3, (1, 6, 6)


@dataclass(frozen=True)
class Data:
    """Random images whose class is their brightest third; ``soft`` mixes each with its neighbour in the batch."""

    n: int = 44
    batch_size: int = 8
    soft: bool = False
    poisoned: int = -1
    seed: int = 3

    def steps(self) -> int:
        return self.n // self.batch_size

    def everything(self) -> Batch:
        keys = torch.arange(self.n) * 7 + 1
        x = noise.uniform(noise.stream(keys, self.seed), SHAPE)
        y = x.reshape(self.n, CLASSES, -1).sum(2).argmax(1)
        x = (0.4 * x + 0.5 * nn.functional.one_hot(y, CLASSES).float().repeat_interleave(12, 1).reshape(x.shape)).clamp(
            0, 1
        )
        return Batch(x, y, keys)

    def train(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1, device: str | torch.device = "cpu"
    ) -> Iterator[Batch]:
        x, y, keys = self.everything()
        order, share = noise.permutation(self.n, self.seed, epoch), self.batch_size // world
        for step in range(start, self.steps()):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            xb, yb, kb = x[rows], y[rows], keys[rows]
            if self.soft:
                lam = 0.5 + 0.5 * noise.uniform(noise.stream(kb, self.seed, epoch), ())
                hot = nn.functional.one_hot(yb, CLASSES).float()
                xb = lam[:, None, None, None] * xb + (1 - lam[:, None, None, None]) * xb.flip(0)
                yb = lam[:, None] * hot + (1 - lam[:, None]) * hot.flip(0)
            if epoch * self.steps() + step == self.poisoned:
                xb = xb * torch.nan
            mine = slice(rank * share, (rank + 1) * share)
            yield Batch(xb[mine].to(device), yb[mine].to(device), kb[mine].to(device))


def net(dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(36, 8), nn.GELU(), nn.Linear(8, CLASSES),
    )  # fmt: skip


def objectives(mode: str = "eval") -> dict[str, object]:
    threat, short = Linf(0.1), PGD(Linf(0.1), steps=2, keep="last")
    return {
        "standard": Standard(mode=mode),
        "gradient_regularized": GradientRegularized(GradientNorm(threat), ramp=CONSTANT, smoothing=0.1, mode=mode),
        "adversarial_training": AdversarialTraining(short, mode=mode),
        "trades": TRADES(short, mode=mode),
        "mart": MART(short, mode=mode),
        "edge_regularized": EdgeRegularized(ramp=CONSTANT, mode=mode),
        "finite_difference": FiniteDifference(threat, step=0.05, ramp=CONSTANT, smoothing=0.1, mode=mode),
        "locally_linear": LocallyLinear(short, weight=1e4, mode=mode),
        "noisy_single_step": NoisySingleStep(threat, mode=mode),
    }


def state(
    model: nn.Module, ema: float | None = 0.9, digest: str = "d", factory: object = torch.optim.AdamW, **options: object
) -> State:
    return State.create(model, optimizers.build(model, partial(factory, **options), 0.05), ema, digest)


def settings(**changed: object) -> Fit:
    given = {"epochs": 2, "schedule": Cosine(lr=0.02, warmup_epochs=0.5, warmup_lr=0.001), "seed": 5}
    return Fit(**(given | changed))

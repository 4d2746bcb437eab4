"""Models as people train them, in seconds, and a short real evaluation of any model."""

import functools
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from trainers import models, noise, optimizers
from trainers.attacks import cascade
from trainers.attacks.apgd import APGD
from trainers.attacks.pgd import PGD
from trainers.attacks.search import misclassified
from trainers.attacks.square import Square
from trainers.data.digits import Digits
from trainers.data.resident import Resident
from trainers.evaluation.doubts import Doubt, Tally, examine
from trainers.evaluation.doubts.untouched import drawing, untouched
from trainers.loop import Fit, fit
from trainers.modes import mode
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.objectives.standard import Standard
from trainers.penalties.gradient_norm import GradientNorm
from trainers.state import State
from trainers.threat import Linf, Threat
from trainers.types import Attack, Batch, Objective

EPS, N = 0.1, 64
KINDS = ("standard", "gradient_norm", "adversarial", "smooth_adversarial")


def _objective(kind: str) -> tuple[Objective, str]:
    """``(objective, activation)``."""
    if kind == "standard":
        return Standard(), "relu"
    if kind == "gradient_norm":
        return GradientRegularized(GradientNorm(Linf(EPS)), smoothing=0.1, mode="train"), "gelu"
    attack = PGD(Linf(EPS), steps=2, keep="last")
    return AdversarialTraining(attack), "relu" if kind == "adversarial" else "silu"


@functools.cache
def data() -> Resident:
    return Resident(Digits(), batch_size=32)


@functools.cache
def trained(kind: str) -> nn.Module:
    """A digits network of clean accuracy 0.9 and more, in eval mode."""
    objective, activation = _objective(kind)
    model = models.create(
        "holdfast_resnet",
        10,
        data().input_size,
        activation=activation,
        second_order=objective.second_order,
        mean=data().mean,
        std=data().std,
        arguments={"width": 12, "blocks": 1},
    )
    adamw = partial(torch.optim.AdamW, betas=(0.9, 0.99))
    state = State.create(model, optimizers.build(model, adamw, 0.05))
    for _ in fit(state, objective, data(), Fit(epochs=4, schedule=optimizers.Cosine(lr=1e-2))):
        pass
    return state.network.eval()


@functools.cache
def digits(n: int = N) -> Batch:
    batches = list(data().held_out("test"))
    x, y, keys = (torch.cat(parts)[:n] for parts in zip(*batches, strict=True))
    return Batch(x, y, keys)


def short(threat: Threat, classes: int) -> list[Attack]:
    middle = {2: [], 3: [APGD(threat, "dlr", steps=20)]}.get(
        classes, [APGD(threat, "targeted_dlr", steps=20, targets=3)]
    )
    return [APGD(threat, steps=30), *middle, Square(threat, queries=100)]


def tallied(model: nn.Module, batch: Batch, attacks: Sequence[Attack], classes: int = 10) -> tuple[torch.Tensor, Tally]:
    """``(robust, tally)`` of a cascade."""
    with untouched(model), drawing(0, batch.x.device), mode(model, train=False), torch.no_grad():
        logits = model(batch.x)
        left = ~misclassified(logits, batch.y)
        right, fooled = int(left.sum()), {}
        for attack in attacks:
            rows = left.nonzero()[:, 0]
            if len(rows):
                keys = cascade.stream(noise.stream(batch.keys[rows], 0), attack.name)
                x_adv = attack(model, batch.x[rows], batch.y[rows], keys)
                left[rows] = ~misclassified(model(x_adv), batch.y[rows])
            fooled[attack.name] = len(rows) - int(left.sum())
    return left, Tally(len(batch.y), right, fooled, 0, int((~logits.isfinite()).any(1).sum()))


def doubts(
    model: nn.Module, batch: Batch | None = None, threat: Threat = Linf(EPS), classes: int = 10, **more
) -> list[Doubt]:
    batch = digits() if batch is None else batch
    robust, tally = tallied(model, batch, short(threat, classes), classes)
    return examine(model, batch, robust, threat, tally, classes, **more)


def names(found: list[Doubt]) -> set[str]:
    return {doubt.name for doubt in found}

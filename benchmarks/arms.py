"""The arms that benchmarks/science.py compares: networks for digits, each trained one way, as the digits recipes do.

Arms of one seed and depth start from the same weights and see the same images, mixed alike, in the same order.
"""

import time
from dataclasses import dataclass
from functools import partial

import torch

from trainers import models, optimizers
from trainers.attacks.pgd import PGD
from trainers.data.augment import Augment
from trainers.data.digits import Digits
from trainers.data.mixing import Mixing
from trainers.data.resident import Resident
from trainers.evaluation.accuracy import CleanAccuracy, RobustAccuracy
from trainers.loop import Fit, fit
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.objectives.standard import Standard
from trainers.optimizers import Cosine
from trainers.penalties.gradient_norm import GradientNorm
from trainers.ramp import Ramp
from trainers.state import State
from trainers.threat import Linf
from trainers.types import Objective

EPOCHS, WARMUP_EPOCHS, BATCH, LR, WEIGHT_DECAY = 25, 3, 64, 2e-3, 0.05
TRAINING, VALIDATION = 1257, 128
NATURAL_EPOCHS = 8


def gradnorm(eps: float, loss_weight: float = 0.8, weight: float = 1.2, mode: str = "train") -> GradientRegularized:
    """As ``recipe=digits_gradnorm``: in train mode, since from scratch BatchNorm has no statistics to freeze."""
    return GradientRegularized(GradientNorm(Linf(eps)), loss_weight=loss_weight, weight=weight, mode=mode)


def pgd3(eps: float, mode: str = "train") -> AdversarialTraining:
    """As ``recipe=digits_pgd``: PGD-3, steps of 2/3 eps that grow over 5 epochs."""
    attack = PGD(Linf(eps), steps=3, step_size=2 / 3 * eps, keep="last")
    return AdversarialTraining(attack, step_size_warmup=Ramp(start=0.0, slope=0.2, stop=1.0), mode=mode)


@dataclass(frozen=True)
class Arm:
    """``eps``: what it is judged at.  ``natural_epochs`` of standard training come before the objective's own."""

    blocks: int
    activation: str
    eps: float
    objective: Objective
    natural_epochs: int = 0


ARMS = {
    "standard_gelu_7": Arm(7, "gelu", 0.15, Standard()),
    "standard_gelu_3": Arm(3, "gelu", 0.10, Standard()),
    "gradnorm_gelu_3": Arm(3, "gelu", 0.10, gradnorm(0.10)),
    "at_gelu_3": Arm(3, "gelu", 0.10, pgd3(0.10)),
}
for _activation in ("gelu", "relu"):
    ARMS |= {
        f"gradnorm_{_activation}_7": Arm(7, _activation, 0.15, gradnorm(0.15, 0.5, 2.0)),
        f"at_{_activation}_7": Arm(7, _activation, 0.15, pgd3(0.15)),
        f"gradnorm_{_activation}_7_frozen_bn": Arm(
            7, _activation, 0.15, gradnorm(0.15, 0.5, 2.0, "eval"), NATURAL_EPOCHS
        ),
        f"at_{_activation}_7_frozen_bn": Arm(7, _activation, 0.15, pgd3(0.15, "eval"), NATURAL_EPOCHS),
    }


@dataclass(frozen=True)
class Budget:
    """How much of it to do; anything but the default is for trying the script.

    ``examples``: training images used and test images judged; none for all 1,129 (128 are the recipes' validation
    images) and 540.
    """

    epochs: int = EPOCHS
    examples: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Outcome:
    """Shares of the test images; ``seconds`` with the judging."""

    arm: str
    seed: int
    clean: float
    robust: float
    seconds: float


def train(name: str, seed: int, budget: Budget) -> Outcome:
    """One run of the arm ``name``, and its accuracies on the test split."""
    arm, began = ARMS[name], time.perf_counter()
    images = data(seed, budget.examples)
    model = network(arm, seed, images).to(budget.device)
    if arm.natural_epochs:
        descend(model, Standard(), images, settings(seed, min(arm.natural_epochs, budget.epochs)))
    descend(model, arm.objective, images, settings(seed, budget.epochs))
    found: dict[str, float] = {}
    for accuracy in (CleanAccuracy(), RobustAccuracy(judge(arm.eps))):
        found.update(accuracy(model, images.held_out("test", device=budget.device, limit=budget.examples)))
    return Outcome(name, seed, found["clean_accuracy"], found["robust_accuracy"], time.perf_counter() - began)


def data(seed: int, examples: int | None = None) -> Resident:
    held_out = VALIDATION if examples is None else TRAINING - examples
    mixing = Mixing(mixup_alpha=0.8, label_smoothing=0.1)
    return Resident(Digits(), BATCH, seed=seed, validation=held_out, augment=Augment(flip=0, shift=0), mixing=mixing)


def network(arm: Arm, seed: int, images: Resident) -> models.Classifier:
    return models.create(
        "holdfast_resnet",
        len(images.classes),
        images.input_size,
        activation=arm.activation,
        mean=images.mean,
        std=images.std,
        second_order=arm.objective.second_order,
        seed=seed,
        arguments={"width": 24, "blocks": arm.blocks},
    )


def descend(model: models.Classifier, objective: Objective, images: Resident, how: Fit) -> None:
    factory = partial(torch.optim.AdamW, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    for _ in fit(State.create(model, optimizers.build(model, factory, WEIGHT_DECAY)), objective, images, how):
        pass


def settings(seed: int, epochs: int = EPOCHS) -> Fit:
    """Fewer epochs keep the warm-up's share of them."""
    schedule = Cosine(lr=LR, warmup_epochs=WARMUP_EPOCHS * epochs / EPOCHS)
    return Fit(epochs=epochs, schedule=schedule, seed=seed, clip_norm=1.0)


def judge(eps: float) -> PGD:
    """50 steps of eps/20 from a random start, each example's best iterate."""
    return PGD(Linf(eps), steps=50)

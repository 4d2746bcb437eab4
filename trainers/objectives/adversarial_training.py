"""Adversarial training; on a network of smooth activations it is smooth adversarial training."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from trainers import losses, modes, noise
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.ramp import CONSTANT, Ramp
from trainers.threat import per_example
from trainers.types import Metrics, Model

_CLEAN = 0x0C1EA4  # names the stream that picks the clean examples


@dataclass(frozen=True)
class AdversarialTraining:
    """``mean_i CE(f(attack(x_i)), y_i)``.

    ``clean_share`` of the examples (drawn per example, keyed) stay unperturbed.  ``eps_warmup`` and
    ``step_size_warmup`` scale the attack's eps and step size by the epoch.  The attack climbs the loss that is
    trained on, soft targets and ``smoothing`` included.

    Source: Madry et al. 2018 (1706.06083); with FGSM and low bounds 2005.01499; with a random-start single step and
    smooth activations 2006.14536; step-size warm-up 0, 1/5 .. 1 over 5 epochs in 2409.20139's recipes (in whole
    epochs there, in fractions of them here).
    """

    attack: PGD | FGSM
    clean_share: float = 0.0
    eps_warmup: Ramp = CONSTANT
    step_size_warmup: Ramp = CONSTANT
    smoothing: float = 0.0
    mode: str = "train"
    second_order: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.clean_share < 1:
            raise ValueError(f"objective.clean_share={self.clean_share:g} must be in [0, 1): 1 is standard training")
        losses.check_smoothing(self.smoothing)
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        keys = noise.fresh(len(x), x.device) if keys is None else keys
        loss_of = partial(losses.cross_entropy, y=y, smoothing=self.smoothing)
        warmup = (float(self.eps_warmup(float(epoch))), float(self.step_size_warmup(float(epoch))))
        x_adv = self.attack.maximise(model, x, loss_of, keys, warmup)
        if self.clean_share:
            clean = noise.uniform(noise.stream(keys, _CLEAN), ()) < self.clean_share
            x_adv = torch.where(per_example(clean, x), x, x_adv)
        logits = model(x_adv)
        loss = loss_of(logits).mean()
        return loss, {"loss": loss.detach(), "adversarial_accuracy": losses.accuracy(logits, y)}

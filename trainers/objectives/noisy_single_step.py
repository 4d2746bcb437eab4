"""N-FGSM: single-step adversarial training in noise larger than the threat, not clipped to it."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from trainers import losses, modes, noise
from trainers.threat import Threat
from trainers.types import Metrics, Model


@dataclass(frozen=True)
class NoisySingleStep:
    """``mean_i CE(f( clip(η_i + step_size · ascent(∇ CE(f(η_i)))) ))``, ``η_i`` uniform in the ball of ``noise · eps``
    round ``x_i``, ``clip`` to [0, 1] alone.

    Its points lie within ``noise · eps + step_size`` of the image: an augmentation that is trained on, no attack of the
    threat.  The noise keeps a single step from overfitting catastrophically where a projected one does not.
    ``step_size`` is in pixel units; left out, it is ``eps``.

    Source: de Jorge et al. 2022 (2202.01181): noise 2, step size eps, Linf.
    """

    threat: Threat
    noise: float = 2.0
    step_size: float | None = None
    smoothing: float = 0.0
    mode: str = "train"
    second_order: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (0 <= self.noise < math.inf):
            raise ValueError(f"objective.noise={self.noise:g} must not be negative; 2 is the published one")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"objective.step_size={self.step_size:g} must be above 0; leave it out for eps")
        losses.check_smoothing(self.smoothing)
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        keys = noise.fresh(len(x), x.device) if keys is None else keys
        loss_of = partial(losses.cross_entropy, y=y, smoothing=self.smoothing)
        start = self.threat.perturb(x, keys, self.noise * self.threat.eps)
        with modes.mode(model, train=False), modes.frozen(model):
            gradient, _, _ = modes.input_gradient(model, start, loss_of)
        step_size = self.threat.eps if self.step_size is None else self.step_size
        logits = model((start + step_size * self.threat.ascent(gradient)).clamp(0, 1))
        loss = loss_of(logits).mean()
        return loss, {"loss": loss.detach(), "adversarial_accuracy": losses.accuracy(logits, y)}

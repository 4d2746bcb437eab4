"""Single-step adversarial training that keeps the loss linear within the threat (ELLE)."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from trainers import losses, modes, noise
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.threat import Threat, per_example
from trainers.types import Loss, Metrics, Model

_DRAWS = (0xE11E1, 0xE11E2, 0xE11E3)  # name the streams of both ends and of the place between them


@dataclass(frozen=True)
class LocallyLinear:
    """``mean_i [ CE(x_adv_i) + weight · (CE(c_i) - (1 - t_i) CE(a_i) - t_i CE(b_i))² ]``

    ``a_i`` and ``b_i`` are drawn from the attack's threat round ``x_i``, ``c_i = (1 - t_i) a_i + t_i b_i`` with
    ``t_i`` uniform in [0, 1], all keyed.  The second term is zero where the loss is linear within the threat, which is
    what a single step takes for granted; where it is not, robust accuracy overfits catastrophically.  No derivative of
    a derivative, three more forward passes.

    Source: ELLE, 2401.11618, the fixed weight; its adaptive one (ELLE-A) needs a memory of earlier steps, which an
    objective does not have.  ``weight`` 1000 is ours: no published value was confirmed.
    """

    attack: FGSM | PGD
    weight: float = 1000.0
    smoothing: float = 0.0
    mode: str = "train"
    second_order: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"objective.weight={self.weight:g} must not be negative")
        losses.check_smoothing(self.smoothing)
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        keys = noise.fresh(len(x), x.device) if keys is None else keys
        loss_of = partial(losses.cross_entropy, y=y, smoothing=self.smoothing)
        logits = model(self.attack.maximise(model, x, loss_of, keys))
        adversarial = loss_of(logits).mean()
        error = linearity_error(model, x, loss_of, self.attack.threat, keys).mean()
        loss = adversarial + self.weight * error
        return loss, {
            "loss": loss.detach(),
            "cross_entropy": adversarial.detach(),
            "linearity_error": error.detach(),
            "adversarial_accuracy": losses.accuracy(logits, y),
        }


def linearity_error(model: Model, x: Tensor, loss: Loss, threat: Threat, keys: Tensor) -> Tensor:
    """``(l(c_i) - (1 - t_i) l(a_i) - t_i l(b_i))²``, ``(N,)``, with ``l`` the ``loss`` of the model's answer."""
    first, second, between = (noise.stream(keys, name) for name in _DRAWS)
    a, b = threat.random_start(x, first), threat.random_start(x, second)
    t = noise.uniform(between, (), x.dtype)
    c = a + per_example(t, x) * (b - a)
    return (loss(model(c)) - (1 - t) * loss(model(a)) - t * loss(model(b))).square()

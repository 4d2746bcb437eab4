"""MART: adversarial training that looks twice at misclassified examples."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from trainers import losses, modes
from trainers.attacks.pgd import PGD
from trainers.types import Metrics, Model


@dataclass(frozen=True)
class MART:
    """``mean_i BCE_i + beta · mean_i KL(f(x_i) || f(x_adv_i)) · (1 - p_y(x_i))``, with
    ``BCE_i = -log p_y(x_adv_i) - log(1 - max_{k != y} p_k(x_adv_i))`` and ``x_adv`` maximising the cross-entropy.

    Soft targets are read as their largest class: the loss is defined for classes only.

    Source: Wang et al. 2020, *Improving Adversarial Robustness Requires Revisiting Misclassified Examples*, eq. 11.
    ``1 - max p_k`` is kept above 1e-6, where the authors' code keeps it above 1e-4.
    """

    attack: PGD
    beta: float = 5.0
    mode: str = "train"
    second_order: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"objective.beta={self.beta:g} must not be negative")
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        y = losses.hard(y)
        x_adv = self.attack.maximise(model, x, partial(losses.cross_entropy, y=y), keys)
        logits, logits_adv = model(x), model(x_adv)
        log_p, log_p_adv = losses.log_softmax(logits), losses.log_softmax(logits_adv)

        runner_up = log_p_adv.scatter(1, y[:, None], -math.inf).amax(1).exp()
        boosted = losses.cross_entropy(logits_adv, y) - (1 + 1e-6 - runner_up).log()
        doubt = 1 - log_p.gather(1, y[:, None])[:, 0].exp()
        divergence = (losses.kl_divergence(log_p_adv, log_p) * doubt).mean()
        loss = boosted.mean() + self.beta * divergence
        return loss, {
            "loss": loss.detach(),
            "divergence": divergence.detach(),
            "accuracy": losses.accuracy(logits, y),
            "adversarial_accuracy": losses.accuracy(logits_adv, y),
        }

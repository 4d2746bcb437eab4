"""Projected gradient descent on the negative loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import losses, modes, noise
from trainers.modes import frozen, input_gradient, mode, outside_inference
from trainers.threat import Threat, per_example
from trainers.types import Loss, Model

Won = Callable[[Tensor], Tensor]
"""Logits ``(N, K)`` to ``(N,) bool``: which examples the attack has won."""


@dataclass(frozen=True)
class PGD:
    """``x_{k+1} = project(x_k + step_size · ascent(∇ loss(x_k)))`` for ``steps`` steps, ``restarts`` times.

    ``step_size`` is in pixel units; left out, it is 2.5·eps/steps (Madry et al.'s choice).  ``random_start`` draws
    ``x_0`` uniformly from the ball, keyed by the example and the restart; without it every restart after the first
    still starts at random, or it would repeat the first.  ``targeted`` reads ``y`` as the class to reach.

    ``keep="best"`` returns, of all iterates of all restarts, each example's best: misclassified before correct, then
    by the loss, never one whose loss is not a number; it costs one more forward a restart.  ``keep="last"`` returns
    the last iterate of the last restart, which is what training wants.

    The network is in eval mode while it is attacked unless ``model_mode="train"``, where BatchNorm's running
    statistics follow the attack's batches too.

    Source: Madry et al. 2018 (1706.06083).  Where we differ from the authors' code: "best" is chosen per example and
    scored on the same input as the steps; parameters collect no gradient.
    """

    threat: Threat
    steps: int = 10
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    targeted: bool = False
    keep: str = "best"
    model_mode: str = "eval"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"attack.steps={self.steps} must be at least 1")
        if self.restarts < 1:
            raise ValueError(f"attack.restarts={self.restarts} must be at least 1")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"attack.step_size={self.step_size:g} must be above 0; leave it out for 2.5·eps/steps")
        if self.keep not in ("best", "last"):
            raise ValueError(f"attack.keep={self.keep!r} must be 'best' or 'last'")
        modes.check("attack.model_mode", self.model_mode)

    @property
    def name(self) -> str:
        return f"pgd-{self.steps}"

    def __call__(self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        sign = -1 if self.targeted else 1
        y = outside_inference(y)
        target = losses.hard(y)

        def won(logits: Tensor) -> Tensor:
            return (logits.argmax(1) == target) == self.targeted

        return self._search(model, x, lambda logits: sign * losses.cross_entropy(logits, y), won, keys, (1.0, 1.0))

    def maximise(
        self, model: Model, x: Tensor, loss: Loss, keys: Tensor | None = None, warmup: tuple[float, float] = (1.0, 1.0)
    ) -> Tensor:
        """As ``__call__``, for any ``loss``, with "best" by the loss alone; ``warmup`` scales (eps, step_size); a step
        size left out follows eps.

        Errors: ``ValueError`` if the attack is ``targeted``: ``loss`` says where to go, there is no class to reach.
        """
        if self.targeted:
            raise ValueError("attack.targeted=true cannot climb an objective's loss; set it to false for training")
        return self._search(model, x, loss, None, keys, warmup)

    def _search(
        self,
        model: Model,
        x: Tensor,
        loss: Loss,
        won: Won | None,
        keys: Tensor | None,
        warmup: tuple[float, float],
    ) -> Tensor:
        threat = self.threat.scaled(warmup[0])
        step_size = (2.5 * threat.eps / self.steps if self.step_size is None else self.step_size) * warmup[1]
        x = x.detach()
        keys = noise.fresh(len(x), x.device) if keys is None else keys
        best, best_score = x, torch.full((len(x),), -torch.inf, device=x.device, dtype=torch.float64)

        with mode(model, self.model_mode == "train"), frozen(model):
            for restart in range(self.restarts):
                x_adv = x
                if self.random_start or restart > 0:
                    x_adv = threat.random_start(x, noise.stream(keys, restart))
                for _ in range(self.steps):
                    gradient, value, logits = input_gradient(model, x_adv, loss)
                    if self.keep == "best":
                        best, best_score = _better(best, best_score, x_adv, _score(value, logits, won))
                    x_adv = threat.project(x_adv + step_size * threat.ascent(gradient), x)
                if self.keep == "best":
                    with torch.no_grad():
                        logits = model(x_adv)
                        score = _score(loss(logits), logits, won)
                    best, best_score = _better(best, best_score, x_adv, score)
        return best if self.keep == "best" else x_adv


def _score(value: Tensor, logits: Tensor, won: Won | None) -> Tensor:
    """The loss, lifted above every other where the attack has ``won``; float64 keeps both apart."""
    value = value.double()
    return value if won is None else value.clamp(-1e6, 1e6) + 4e6 * won(logits)


def _better(best: Tensor, best_score: Tensor, x_adv: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    wins = score > best_score
    return torch.where(per_example(wins, x_adv), x_adv, best), torch.where(wins, score, best_score)

"""An alarm for catastrophic overfitting: robustness lost within an epoch while the training loss still falls."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from trainers.distributed import agree
from trainers.modes import mode
from trainers.state import State

RobustProbe = Callable[[nn.Module], float]
"""Robust accuracy on a held-out slice: a model in eval mode to a share in [0, 1]."""


class CatastrophicOverfitting(UserWarning):
    """The probe's robust accuracy fell far below its best."""


@dataclass(frozen=True)
class Alarm:
    """Rings when the probe falls below ``share`` of its best so far, once that best has reached ``minimum``.

    ``policy``: ``"off"``; ``"warn"``: a Python warning on rank 0 and the metric ``catastrophic_overfitting`` 1;
    ``"stop"``: the run ends with the weights of the last epoch in which it did not ring.

    The probe sees the trained weights, not their average: the fall takes less than an epoch, and the average would
    hide it for as long as it remembers.  Source: Wong et al. 2020 (2001.03994), section 5.4, who stop training where
    PGD accuracy on a training batch falls suddenly; half of the best is our choice.
    """

    policy: str = "off"
    share: float = 0.5
    minimum: float = 0.1

    def __post_init__(self) -> None:
        if self.policy not in ("off", "warn", "stop"):
            raise ValueError(f"alarm.policy={self.policy!r} must be 'off', 'warn' or 'stop'")
        for name in ("share", "minimum"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"alarm.{name}={getattr(self, name):g} must be in (0, 1]")

    def listen(self, state: State, probe: RobustProbe) -> tuple[dict[str, float], str]:
        """``(metrics, why it rings)``; when it does not, this epoch becomes the last good one."""
        with mode(state.model, train=False):
            value = agree(float(probe(state.model)))
        best = -math.inf if state.best_probe is None else state.best_probe
        rings = best >= self.minimum and not value >= self.share * best
        metrics = {"probe_robust_accuracy": value, "catastrophic_overfitting": float(rings)}
        if rings:
            return metrics, (
                f"catastrophic overfitting: robust accuracy fell to {value:.3f} after epoch {state.epoch}, "
                f"from {best:.3f} at best. More attack steps, a smaller step size or a gradient penalty prevent it"
            )
        state.best_probe = max(best, value)
        if self.policy == "stop":
            state.remember()
        return metrics, ""

    def warn(self, why: str) -> None:
        warnings.warn(why, CatastrophicOverfitting, stacklevel=3)

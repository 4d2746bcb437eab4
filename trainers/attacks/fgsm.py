"""The fast gradient (sign) method."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from trainers import losses, modes, noise
from trainers.modes import frozen, input_gradient, mode, outside_inference
from trainers.threat import Threat
from trainers.types import Loss, Model


@dataclass(frozen=True)
class FGSM:
    """One step of ``step_size`` along the steepest ascent direction of the loss, projected into the threat.

    ``x_adv = project(x_0 + step_size · ascent(∇ loss(x_0)))``, where ``x_0`` is ``x``, or a point of the ball with
    ``random_start`` ("FGSM-RS").  ``step_size`` is in pixel units; left out, it is ``eps``.

    Source: Goodfellow et al. 2015 (1412.6572); random start and step 1.25·eps: Wong et al. 2020 (2001.03994).
    """

    threat: Threat
    step_size: float | None = None
    random_start: bool = False
    model_mode: str = "eval"

    def __post_init__(self) -> None:
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"attack.step_size={self.step_size:g} must be above 0; leave it out for eps")
        modes.check("attack.model_mode", self.model_mode)

    @property
    def name(self) -> str:
        return "fgsm"

    def __call__(self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        return self.maximise(model, x, partial(losses.cross_entropy, y=outside_inference(y)), keys)

    def maximise(
        self, model: Model, x: Tensor, loss: Loss, keys: Tensor | None = None, warmup: tuple[float, float] = (1.0, 1.0)
    ) -> Tensor:
        """As ``__call__``, for any ``loss``; ``warmup`` scales (eps, step_size); a step size left out follows eps."""
        threat = self.threat.scaled(warmup[0])
        step_size = (threat.eps if self.step_size is None else self.step_size) * warmup[1]
        x_0 = x = x.detach()
        if self.random_start:
            x_0 = threat.random_start(x, noise.fresh(len(x), x.device) if keys is None else keys)
        with mode(model, self.model_mode == "train"), frozen(model):
            gradient, _, _ = input_gradient(model, x_0, loss)
        return threat.project(x_0 + step_size * threat.ascent(gradient), x)

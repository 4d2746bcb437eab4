"""What the loss does on the way from an image to its adversarial example, and beyond."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainers import losses
from trainers.evaluation.curvature import Curvature
from trainers.evaluation.gradient_statistics import collect, gradients, mean
from trainers.modes import outside_inference
from trainers.types import Attack, Batch, Model

QUANTITIES = ("loss", "gradient_l1", "hessian_norm", "normalised_curvature")


@dataclass(frozen=True)
class Interpolation:
    """Yields ``loss_at_<t>``, ``gradient_l1_at_<t>``, ``hessian_norm_at_<t>`` and ``normalised_curvature_at_<t>``.

    Means over images at ``x + t (x_adv - x)``: ``t = 0`` is the image, ``t = 1`` what ``attack`` made of it, ``reach``
    the end; ``points`` equal steps and the start.  Units as in ``GradientNorms`` and ``Curvature``.  The line is
    straight: past ``t = 1`` it leaves the threat, and may leave [0, 1].

    A normalised curvature is the mean over the images whose gradient is not zero there, and left out where none is.

    Source: 2409.20139, interpolation to the PGD-5 point and on to twice as far, at 16 points.  Where we differ: there
    are 16 besides the image itself, so that 0, 1 and 2 are all among them.
    Errors: ``ValueError`` for fewer than one step, a ``reach`` that is not above 0, and no examples.
    """

    attack: Attack
    points: int = 16
    reach: float = 2.0
    curvature: Curvature = Curvature()

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"points={self.points} must be at least 1; 16 is the published number")
        if not 0 < self.reach < math.inf:
            raise ValueError(f"reach={self.reach:g} must be above 0; 2 goes twice as far as the adversarial example")

    @property
    def places(self) -> tuple[float, ...]:
        """``t``, from 0 to ``reach``."""
        return tuple(self.reach * k / self.points for k in range(self.points + 1))

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        found = self.values(model, batches)[1].unflatten(1, (-1, len(QUANTITIES)))
        for t, (*always, normalised) in zip(self.places, found.permute(1, 2, 0), strict=True):
            for quantity, values in zip(QUANTITIES[:3], always, strict=True):
                yield f"{quantity}_at_{t:g}", mean(values, quantity).value
            steep = always[1] != 0
            if mean(steep.double(), QUANTITIES[3]).value > 0:
                yield f"{QUANTITIES[3]}_at_{t:g}", mean(normalised, QUANTITIES[3], steep).value

    def values(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,), (N, (points + 1) · 4) float64)`` of this rank: the four ``QUANTITIES`` at each place."""

        def measure(batch: Batch) -> Tensor:
            x_adv = self.attack(model, batch.x, batch.y, batch.keys).to(batch.x)
            return torch.cat([self._at(model, batch._replace(x=batch.x.lerp(x_adv, t))) for t in self.places], 1)

        return collect(batches, measure, len(self.places) * len(QUANTITIES))

    def _at(self, model: Model, batch: Batch) -> Tensor:
        """``(N, 4) float64``."""
        gradient, values, _ = gradients(model, batch)
        loss = partial(losses.cross_entropy, y=outside_inference(batch.y))
        curves = self.curvature.measure(model, batch.x, loss, batch.keys)
        return torch.stack([values.double(), gradient.flatten(1).double().abs().sum(1), curves[:, 0], curves[:, 2]], 1)

"""Whether the loss is steep where the image has edges."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.edges import EdgeEnergy
from trainers.evaluation.gradient_statistics import collect, gradients, mean
from trainers.types import Batch, Model


@dataclass(frozen=True)
class EdgeCorrelation:
    """Yields ``edge_correlation``, its 95 % interval ``edge_correlation_low`` and ``_high``, and
    ``edge_correlation_defined``.

    Per image, over its pixels, Pearson's correlation of ``log max(E, floor)`` with
    ``log max(s, gradient_floor · max s)``, ``E`` the edge energy of the image in [0, 1] and
    ``s = Σ_c |∇_x CE(f(x), y)_c|``.  In [-1, 1], and the same for every scale of the gradient.  Then the mean over
    images; its interval is for the sampling of images, not of trainings.

    An image without edges above ``floor``, or with a gradient of the same size everywhere, has no correlation: it is
    left out, and ``edge_correlation_defined`` is the share of images that have one.

    Source: 2409.20139, edge correlation; floor 1e-3.  Where we differ: the authors take the edges of the normalised
    image, about 4.4 times as large, and give no floor to ``s``, whose logarithm is infinite where the loss does not
    depend on a pixel.
    Errors: ``ValueError`` for floors out of range, images smaller than the blur, no examples, and where no image has a
    correlation.
    """

    edges: EdgeEnergy = EdgeEnergy()
    floor: float = 1e-3
    gradient_floor: float = 1e-6

    def __post_init__(self) -> None:
        if not self.floor > 0:
            raise ValueError(
                f"floor={self.floor:g} must be above 0, such as 1e-3: edges are compared by their logarithm"
            )
        if not 0 < self.gradient_floor < 1:
            raise ValueError(
                f"gradient_floor={self.gradient_floor:g} must be in (0, 1), such as 1e-6: a share of the steepest"
            )

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        correlations = self.values(model, batches)[1][:, 0]
        found = mean(correlations, "edge correlation", ~correlations.isnan())
        low, high = found.interval()
        yield "edge_correlation", found.value
        yield "edge_correlation_low", low
        yield "edge_correlation_high", high
        yield "edge_correlation_defined", found.defined

    def values(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,), correlations (N, 1) float64)`` of this rank's examples, NaN where there is none."""
        return collect(batches, lambda batch: self.correlation(gradients(model, batch)[0], batch.x)[:, None], 1)

    def correlation(self, gradient: Tensor, x: Tensor) -> Tensor:
        """``(N,) float64`` of gradients and images ``(N, C, H, W)``, NaN where there is none."""
        edges = self.edges(x).double().flatten(1).clamp_min(self.floor).log()
        slope = gradient.detach().double().abs().sum(1).flatten(1)
        steepest = slope.amax(1, keepdim=True)
        slope = (slope / steepest).clamp_min(self.gradient_floor).log()
        return pearson(edges, slope)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Row by row of ``(N, D)``; NaN where either is constant."""
    a, b = (rows - rows.mean(1, keepdim=True) for rows in (a, b))
    a, b = (_unit(rows) for rows in (a, b))
    return (a * b).sum(1).clamp(-1, 1)


def _unit(rows: Tensor) -> Tensor:
    """Of length 1; NaN where what is left of a constant row is rounding."""
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-12 * rows.shape[1] ** 0.5, rows / length, torch.nan)

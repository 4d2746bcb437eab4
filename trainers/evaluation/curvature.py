"""How fast the slope of the loss changes in the image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainers import losses, noise
from trainers.evaluation.gradient_statistics import collect, mean
from trainers.modes import connected, frozen, mode, outside_inference
from trainers.threat import per_example
from trainers.types import Batch, Loss, Model


@dataclass(frozen=True)
class Curvature:
    """Yields ``hessian_norm``, ``normalised_curvature`` and ``normalised_curvature_defined``.

    ``hessian_norm`` is the mean over images of the largest singular value of ``H = ∇²_x CE(f(x), y)``, per squared
    pixel unit, by ``steps`` power iterations.  ``normalised_curvature`` is that of ``||H||_2 / ||∇_x CE||_2``, per
    pixel unit: about one over the distance on which the slope changes by as much as it is, whatever the scale of the
    loss.  An image whose gradient is zero has none, and ``normalised_curvature_defined`` is the share that has.

    Power iteration comes from below: too few steps give too little, never too much.  The start is Gaussian, drawn by
    ``seed`` and the example.  A ReLU network is piecewise linear: only the softmax curves its loss inside a piece, and
    what happens from piece to piece is not seen.

    Source: 2409.20139, normalised curvature (20 steps); Srinivas et al., *Efficient training of low-curvature neural
    networks*, NeurIPS 2022.  Moosavi-Dezfooli et al. 2019 (1811.09716) relate curvature to robustness.
    Errors: ``ValueError`` for ``steps`` below 1, no examples, a gradient that is zero for every image, and a model that
    cannot be differentiated twice.
    """

    steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1; 20 is the published number of power iterations")

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        _, found = self.values(model, batches)
        normalised = mean(found[:, 2], "normalised curvature", found[:, 1] != 0)
        yield "hessian_norm", mean(found[:, 0], "curvature").value
        yield "normalised_curvature", normalised.value
        yield "normalised_curvature_defined", normalised.defined

    def values(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,), (N, 3) float64)`` of this rank: ``||H||_2``, ``||∇||_2`` and their ratio, NaN for 0/0."""

        def measure(batch: Batch) -> Tensor:
            loss = partial(losses.cross_entropy, y=outside_inference(batch.y))
            return self.measure(model, batch.x, loss, batch.keys)

        return collect(batches, measure, 3)

    def measure(self, model: Model, x: Tensor, loss: Loss, keys: Tensor) -> Tensor:
        """``(N, 3) float64`` as in ``values``, for any ``loss``: logits to one number an example."""
        start = noise.normal(noise.stream(keys, self.seed), x.shape[1:], x.dtype)
        with mode(model, train=False), frozen(model):
            hessian, gradient = _largest_singular_value(model, x, loss, start, self.steps)
        return torch.stack([hessian, gradient, hessian / gradient], 1)


def _largest_singular_value(
    model: nn.Module, x: Tensor, loss: Loss, start: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """``(||H||_2, ||g||_2)``, both ``(N,) float64``: ``v <- Hv / ||Hv||``, ``||Hv||`` at the last ``v``.

    The loss is summed over the batch, so one product ``Hv`` serves all: each image's H is a block of its own.  Not the
    Rayleigh quotient ``v·Hv``, which is too small where H has two largest eigenvalues of opposite sign.  Lengths are
    taken in float64: a confident image's gradient is near 1e-30, and its square is 0 in float32.  Fused attention has
    no second derivative, so its plain kernel is asked for.
    """
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        x = outside_inference(x).requires_grad_()
        summed = loss(connected(model(x), x)).sum()
        (gradient,) = torch.autograd.grad(summed, x, create_graph=True)
        product, length = start, _length(start)
        for _ in range(steps):
            direction = (product.double() / per_example(length.clamp_min(torch.finfo(torch.float64).tiny), x)).to(x)
            product = _derivative(gradient, x, direction, type(model).__name__)
            length = _length(product)
    return length, _length(gradient.detach())


def _derivative(gradient: Tensor, x: Tensor, direction: Tensor, name: str) -> Tensor:
    """``Hv``: zero where the gradient is the same everywhere, an error where it says that it is not, but not how."""
    if not gradient.requires_grad:
        return torch.zeros_like(x)
    reason = "part of it has a gradient of its own that cannot be differentiated again"
    try:
        (product,) = torch.autograd.grad(gradient, x, direction, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "derivative" not in str(error):
            raise
        product, reason = None, str(error).splitlines()[0]
    if product is None:
        raise ValueError(
            f"model {name} cannot be differentiated twice, which curvature needs: {reason}; choose one made of plain "
            "operations"
        )
    return product


def _length(vectors: Tensor) -> Tensor:
    return vectors.flatten(1).double().norm(dim=1)

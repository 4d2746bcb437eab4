"""Cross-entropy plus the distance of an input gradient from the image's edges (double back-propagation)."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from trainers import losses, modes, noise
from trainers.edges import EdgeEnergy
from trainers.ramp import Ramp
from trainers.types import Metrics, Model


@dataclass(frozen=True)
class EdgeRegularized:
    """``mean_i [ CE_i + weight · ramp(epoch) · mean( (g_i / rms(g_i) - e_i / rms(e_i))² ) ]``

    with ``rms(v) = sqrt(mean(v²))`` and ``e_i`` the edges of ``x_i``, the same in every channel.  Only the gradient's
    shape counts: multiplied by any number above 0, it costs the same.

    ``of`` says what ``g_i`` is the gradient of.  ``"sampled"``: the logit of a class drawn from
    ``softmax(f(x_i) / temperature)``, keyed.  ``"relaxed"``: all logits, weighed by ``softmax(f(x_i) / temperature +
    Gumbel noise)``, the weights held fixed.  ``"loss"``: ``CE_i``.
    ``saliency`` compares ``max_c |g_i|`` with ``e_i`` in place of each channel's signed gradient.
    ``rms="image"`` scales each image by itself; ``"batch"``, as published, all of them by one number, so that an
    example's cost depends on which others are with it.

    Source: 2409.20139, EdgeReg: a sampled logit at temperature 0.5, BatchNorm in train mode, and a weight of 1 that
    rises by 0.09 an epoch to 19.
    """

    edges: EdgeEnergy = EdgeEnergy()
    weight: float = 1.0
    ramp: Ramp = Ramp(1.0, 0.09, 19.0)
    of: str = "sampled"
    temperature: float = 0.5
    saliency: bool = False
    rms: str = "image"
    smoothing: float = 0.0
    mode: str = "train"
    second_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"objective.weight={self.weight:g} must not be negative")
        if self.of not in ("sampled", "relaxed", "loss"):
            raise ValueError(f"objective.of={self.of!r} must be 'sampled', 'relaxed' or 'loss'")
        if not (0 < self.temperature < math.inf):
            raise ValueError(f"objective.temperature={self.temperature:g} must be above 0; 0.5 is the published one")
        if self.rms not in ("image", "batch"):
            raise ValueError(f"objective.rms={self.rms!r} must be 'image' or 'batch'")
        losses.check_smoothing(self.smoothing)
        modes.check("objective.mode", self.mode)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, epoch: float | Tensor = math.inf
    ) -> tuple[Tensor, Metrics]:
        keys = noise.fresh(len(x), x.device) if keys is None else keys
        loss_of = partial(losses.cross_entropy, y=y, smoothing=self.smoothing)
        of = (
            loss_of
            if self.of == "loss"
            else partial(drawn, keys=keys, temperature=self.temperature, relaxed=self.of == "relaxed")
        )
        gradient, _, logits = modes.differentiable_input_gradient(model, x, of)
        cross_entropy = loss_of(logits).mean()
        distance = self.distance(gradient, x).mean()
        loss = cross_entropy + self.weight * self.ramp(epoch) * distance
        return loss, {
            "loss": loss.detach(),
            "cross_entropy": cross_entropy.detach(),
            "edge_distance": distance.detach(),
            "accuracy": losses.accuracy(logits, y),
        }

    def distance(self, gradient: Tensor, x: Tensor) -> Tensor:
        """``(N,)``: between 0 and 4 with ``rms="image"``, 2 where both have nothing to do with each other."""
        if self.saliency:
            gradient = gradient.abs().amax(1, keepdim=True)
        edges = self.edges(x).expand_as(gradient)
        return (self._scaled(gradient) - self._scaled(edges)).square().flatten(1).mean(1)

    def _scaled(self, v: Tensor) -> Tensor:
        """Divided by its largest entry first: the square of a confident example's gradient, near 1e-30, is 0."""
        whole = v.flatten(1) if self.rms == "image" else v.reshape(1, -1)
        tiny = torch.finfo(v.dtype).tiny
        whole = whole / whole.detach().abs().amax(1, keepdim=True).clamp_min(tiny)
        return (whole / whole.square().mean(1, keepdim=True).clamp_min(tiny).sqrt()).reshape(v.shape)


def drawn(logits: Tensor, keys: Tensor, temperature: float, relaxed: bool = False) -> Tensor:
    """``(N,)``: the logit of a class drawn from ``softmax(logits / temperature)``, or all of them ``relaxed``.

    By the Gumbel trick: the largest of ``logits / temperature + noise`` is such a draw, their softmax its relaxation.
    """
    uniform = noise.uniform(keys, logits.shape[1:], logits.dtype)
    gumbel = -(-uniform.clamp_min(1e-12).log()).log()
    scores = logits.detach() / temperature + gumbel
    if relaxed:
        return (scores.softmax(1) * logits).sum(1)
    return logits.gather(1, scores.argmax(1, keepdim=True))[:, 0]

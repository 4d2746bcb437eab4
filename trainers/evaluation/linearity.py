"""How far the loss is from a straight line near an image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainers import losses, noise
from trainers.evaluation.gradient_statistics import collect, mean
from trainers.modes import mode
from trainers.threat import Threat, per_example
from trainers.types import Batch, Loss, Model


@dataclass(frozen=True)
class LocalLinearity:
    """Yields ``local_linearity_error``: the mean over images of ``(l(c) - (1 - t) l(a) - t l(b))²``.

    ``l`` is the cross-entropy, ``a`` and ``b`` are uniform in the ball of ``threat`` round the image (for Linf
    ``x + eps · U(-1, 1)``), ``c = (1 - t) a + t b`` with ``t`` uniform in [0, 1): one draw an image, by ``seed`` and
    the example.  In squared units of the loss (nats²).  Zero for a loss that is linear in the image, and
    ``(t (1 - t) (a - b)·H(a - b) / 2)²`` for a quadratic one.

    The points are not clipped to [0, 1]: in images with much black or white the ball would lose a part that depends on
    the image, not on the network.

    Source: 2409.20139, local linearity, at Linf 4/255 on 10,000 images; it is the quantity that ELLE penalises
    (2401.11618).  What the authors do at the border of the cube is not known to us.
    Errors: ``ValueError`` if no rank has an example.
    """

    threat: Threat
    seed: int = 0

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        yield "local_linearity_error", mean(self.values(model, batches)[1][:, 0], "local linearity").value

    def values(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,), errors (N, 1) float64)`` of this rank's examples."""

        def measure(batch: Batch) -> Tensor:
            loss = partial(losses.cross_entropy, y=batch.y)
            return self.measure(model, batch.x, loss, batch.keys)[:, None]

        return collect(batches, measure, 1)

    @torch.no_grad()
    def measure(self, model: Model, x: Tensor, loss: Loss, keys: Tensor) -> Tensor:
        """``(N,) float64``, for any ``loss``: logits to one number an example."""
        a, b, t = self.points(x, keys)
        with mode(model, train=False):
            at_a, at_b, at_c = (loss(model(point).double()) for point in (a, b, a.lerp(b, per_example(t, x))))
        return (at_c - at_a.lerp(at_b, t.double())).square()

    def points(self, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``a``, ``b``, and ``t (N,)``."""
        a, b = (self.threat.perturb(x, noise.stream(keys, self.seed, end), self.threat.eps) for end in (0, 1))
        return a, b, noise.uniform(noise.stream(keys, self.seed, 2), (), x.dtype)

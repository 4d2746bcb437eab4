"""ALE: compatibility that ranks the right class first, by stochastic gradient descent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import noise
from trainers.evaluation.zero_shot.compatibility import Compatibility, seen_of


@dataclass(frozen=True)
class ALE:
    """Descends the weighted approximate ranking loss over the ``k`` classes that have examples.

    An example of class ``y`` meets the other classes in random order; the first with ``1 + F(x, c) > F(x, y)``, at
    place ``m``, estimates how many there are as ``r = floor((k - 1) / m)`` and moves
    ``V += step_size · (Σ_{i <= r} 1/i) · x (a_y - a_c)ᵀ``.  Stopping after ``epochs`` is all that regularises.

    Features and attributes are divided by their root mean square length first, so ``step_size`` has no unit, and
    nothing changes when either is scaled.  ``V`` starts at 0.  Orders are keyed by ``seed``, epoch and row: the same
    rows in the same order, the same matrix, whatever torch's generator is at.

    Source: Akata, Perronnin, Harchaoui and Schmid, *Label-embedding for attribute-based classification*, CVPR 2013,
    and *Label-embedding for image classification*, TPAMI 2016 (1503.08677); the ranking is that of Weston, Bengio and
    Usunier, *WSABIE*, IJCAI 2011.  Here a step is the mean over ``batch_size`` examples (1: an example a step, as
    there), and classes are drawn without replacement, so that no violation is overlooked.
    Errors: ``ValueError`` for settings outside their range, and for tables that do not fit.
    """

    step_size: float = 1.0
    epochs: int = 20
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.step_size < float("inf"):
            raise ValueError(f"ale.step_size={self.step_size:g} must be above 0 and finite, such as 1")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"ale.{name}={getattr(self, name)} must be at least 1")

    def __call__(self, features: Tensor, classes: Tensor, attributes: Tensor) -> Compatibility:
        seen, position = seen_of(features, classes, attributes)
        x, s = features.double(), attributes[seen].double()
        length_x, length_s = _length("features", x), _length("attributes", s)
        x, s = x / length_x, s / length_s
        v = torch.zeros(x.shape[1], s.shape[1], dtype=x.dtype)
        weights = (1 / torch.arange(len(seen), dtype=x.dtype)).nan_to_num(posinf=0).cumsum(0)
        rows = torch.arange(len(x))
        for epoch in range(self.epochs):
            places = noise.uniform(noise.stream(rows, self.seed, epoch), (len(seen),))
            for batch in noise.permutation(len(x), self.seed, epoch).split(self.batch_size):
                v += self.step_size / len(batch) * _step(v, x[batch], position[batch], s, places[batch], weights)
        return Compatibility(v / (length_x * length_s))


def _step(v: Tensor, x: Tensor, position: Tensor, s: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Minus the summed gradient of a batch; ``places (n, k)``: the random order in which classes are met."""
    scores = x @ v @ s.T
    own = position[:, None]
    violates = 1 + scores > scores.gather(1, own)
    violates.scatter_(1, own, False)
    place, first = torch.where(violates, places, torch.inf).min(1)
    met = (places <= place[:, None]).scatter(1, own, False).sum(1)
    rank = torch.div(len(s) - 1, met.clamp_min(1), rounding_mode="floor")
    weight = torch.where(violates.any(1), weights[rank], 0)
    return x.T @ (weight[:, None] * (s[position] - s[first]))


def _length(name: str, table: Tensor) -> float:
    length = float(table.square().sum(1).mean().sqrt())
    if length == 0:
        raise ValueError(f"all {name} are 0: there is nothing to learn from")
    return length


def grid(seed: int = 0) -> tuple[ALE, ...]:
    """Step sizes from 0.1 to 10 by 5 to 40 epochs, the shortest first: of equal ones it is chosen."""
    return tuple(ALE(step_size, epochs, seed=seed) for epochs in (5, 10, 20, 40) for step_size in (0.1, 1.0, 10.0))

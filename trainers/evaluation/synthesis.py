"""Moving an image to another class: do others see that class in what a network was moved by?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from trainers import losses, noise
from trainers.attacks.pgd import PGD
from trainers.evaluation.gradient_statistics import collect, mean
from trainers.modes import mode
from trainers.threat import Threat
from trainers.types import Batch, Model


@dataclass(frozen=True)
class Synthesis:
    """Yields ``synthesis_target_probability``, ``synthesis_judge_agreement`` and ``synthesis_distance``.

    Each image descends ``CE(f(x), target)`` of the model, the source, by ``steps`` of normalised gradients within a
    large ``threat``: ``PGD`` with a target, no random start, its last iterate.  For L2 a step is
    ``step_size · g / ||g||_2``, in pixel units; left out, ``2.5 · eps / steps``.  ``target`` is uniform over the other
    ``classes``, by ``seed`` and the example.

    ``target_probability`` is the source's own probability of the target, ``judge_agreement`` the share of images that
    ``judge`` gives the target, ``distance`` the mean norm of the change.  The judge is a network that was trained apart
    from the source, best naturally and by another seed.  It is fooled by chance as well: compare sources under one
    judge, not with 1.

    Source: 2005.01499, targeted large perturbations (there looked at, not counted), after Santurkar et al.,
    *Image synthesis with a single (robust) classifier*, NeurIPS 2019.  The judge and the counts are ours.
    Errors: ``ValueError`` for fewer than 2 ``classes``, steps as PGD refuses them, a judge that is the source, logits
    of another number of classes, an L2 ``eps`` beyond the images' diagonal, and no examples.
    """

    threat: Threat
    judge: Model = field(repr=False)
    classes: int
    steps: int = 60
    step_size: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes={self.classes} must be at least 2: there must be another class to move to")
        _ = self.attack

    @property
    def attack(self) -> PGD:
        return PGD(self.threat, self.steps, self.step_size, random_start=False, targeted=True, keep="last")

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        _, found = self.values(model, batches)
        for name, values in zip(("target_probability", "judge_agreement", "distance"), found.T, strict=True):
            yield f"synthesis_{name}", mean(values, "synthesis").value

    def values(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,), (N, 3) float64)`` of this rank: probability, agreement (0 or 1) and distance."""
        return collect(batches, partial(self._measure, model), 3)

    def targets(self, y: Tensor, keys: Tensor) -> Tensor:
        """``(N,)``: a class other than each example's own."""
        others = noise.integers(noise.stream(keys, self.seed), self.classes - 1)
        return (losses.hard(y) + 1 + others) % self.classes

    def images(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
        """``(images, targets)``: ``batch`` as ``model`` would have it be of another class."""
        if model is self.judge:
            raise ValueError("judge is the network that makes the images: give one that was trained apart from it")
        self.threat.check(tuple(batch.x.shape[1:]))
        target = self.targets(batch.y, batch.keys)
        return self.attack(model, batch.x, target, batch.keys), target

    def _measure(self, model: Model, batch: Batch) -> Tensor:
        for name, network in (("model", model), ("judge", self.judge)):
            if (width := self._logits(network, batch.x[:1]).shape[1]) != self.classes:
                raise ValueError(f"classes={self.classes}, but {name} has {width}: all three must agree")
        made, target = self.images(model, batch)
        probability = losses.log_softmax(self._logits(model, made)).exp().gather(1, target[:, None])[:, 0]
        agreed = self._logits(self.judge, made).argmax(1) == target
        return torch.stack([part.double() for part in (probability, agreed, self.threat.distance(made, batch.x))], 1)

    @torch.no_grad()
    def _logits(self, network: Model, x: Tensor) -> Tensor:
        with mode(network, train=False):
            logits: Tensor = network(x)
        return logits

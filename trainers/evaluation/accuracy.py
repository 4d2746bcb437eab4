"""The share of examples classified rightly: as they are, and under attack."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import distributed, losses
from trainers.modes import mode
from trainers.types import Attack, Batch, Model

Verdicts = tuple[Tensor, Tensor]
"""``(keys (N,) int64, correct (N,) bool)`` on the CPU, of this rank's examples, in the order they came."""


@dataclass(frozen=True)
class CleanAccuracy:
    """Yields ``clean_accuracy``: the share of examples whose largest logit is their class, in eval mode.

    Logits that hold a NaN are wrong, whatever their largest entry is.

    Errors: ``ValueError`` if no rank has an example.
    """

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        yield "clean_accuracy", _share(self.verdicts(model, batches)[1])

    def verdicts(self, model: Model, batches: Iterable[Batch]) -> Verdicts:
        """Per example, for paired tests."""
        return _collect(model, batches, lambda batch: _correct(model, batch.x, batch.y))


@dataclass(frozen=True)
class RobustAccuracy:
    """Yields ``robust_accuracy``: the share of examples classified rightly both as they are and under ``attack``.

    An example that is wrong already is not robust, and is not attacked.  The attack sees a different batch for that;
    its randomness is keyed by the example and the network is in eval mode, so the verdicts do not change.

    Errors: ``ValueError`` if no rank has an example.
    """

    attack: Attack

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        yield "robust_accuracy", _share(self.verdicts(model, batches)[1])

    def verdicts(self, model: Model, batches: Iterable[Batch]) -> Verdicts:
        """Per example, for paired tests."""
        return _collect(model, batches, lambda batch: self._robust(model, batch))

    def _robust(self, model: Model, batch: Batch) -> Tensor:
        robust = _correct(model, batch.x, batch.y)
        rows = robust.nonzero()[:, 0]
        if len(rows):
            x, y, keys = batch.x[rows], batch.y[rows], batch.keys[rows]
            robust[rows] = _correct(model, self.attack(model, x, y, keys), y)
        return robust


def _correct(model: Model, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(x)
    return (logits.argmax(1) == losses.hard(y)) & ~logits.isnan().any(1)


def _collect(model: Model, batches: Iterable[Batch], judge: Callable[[Batch], Tensor]) -> Verdicts:
    keys, correct = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.bool)]
    with mode(model, train=False):
        for batch in batches:
            correct.append(judge(batch).cpu())
            keys.append(batch.keys.cpu())
    return torch.cat(keys), torch.cat(correct)


def _share(correct: Tensor) -> float:
    """The mean over every example of every rank, however they are shared out."""
    right, n = distributed.total(torch.tensor([int(correct.sum()), len(correct)])).tolist()
    if n == 0:
        raise ValueError("no examples to measure accuracy on: the split is empty; choose another")
    return right / n

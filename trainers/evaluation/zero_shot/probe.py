"""Zero-shot accuracy of a backbone, settings chosen on the way."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.data.zero_shot_splits import ZeroShotSet
from trainers.evaluation.zero_shot import eszsl
from trainers.evaluation.zero_shot.compatibility import Method
from trainers.evaluation.zero_shot.features import on_backbone
from trainers.evaluation.zero_shot.scores import judge
from trainers.evaluation.zero_shot.selection import folds, select
from trainers.types import Batch, Model


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Yields ``zero_shot_t1``, ``zero_shot_unseen``, ``zero_shot_seen`` and ``zero_shot_harmonic`` (``scores.Scores``),
    each with its ``..._low`` and ``..._high``, and ``zero_shot_chance``, 1 over the number of unseen classes, beside
    which T1 is read.

    ``learn``: batches of the seen classes, which can be gone through again; those the probe is called with are judged.
    ``attributes (K, a)``, ``names``: of all classes.  Of ``methods`` the one is taken that is best on training classes
    held out: the task's own ``validation`` classes, or as many ``folds``, keyed by ``seed``.

    Errors: ``ValueError``, as ``on_backbone``, ``folds`` and ``select``.
    """

    learn: Iterable[Batch]
    attributes: Tensor
    names: tuple[str, ...]
    methods: tuple[Method, ...] = eszsl.grid()
    folds: int = 3
    seed: int = 0

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        task = on_backbone(model, self.learn, batches, self.attributes, self.names)
        yield from measure(task, self.methods, self.folds, self.seed)


def measure(
    task: ZeroShotSet, methods: tuple[Method, ...] = eszsl.grid(), count: int = 3, seed: int = 0
) -> Iterator[tuple[str, float]]:
    """As ``ZeroShot``, of features there are already: those of the published files, say."""
    x, y = task.features[task.trainval_loc], task.classes[task.trainval_loc]
    own = (torch.tensor(task.validation),) if task.validation else ()
    chosen = select(methods, x, y, task.attributes, own or folds(y, count, seed)).method
    for name, score in judge(chosen(x, y, task.attributes), task)._asdict().items():
        for suffix, value in zip(("", "_low", "_high"), score, strict=True):
            yield f"zero_shot_{name}{suffix}", value
    yield "zero_shot_chance", 1 / len(task.unseen)

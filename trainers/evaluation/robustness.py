"""A whole cascade against a model in one process: who withstands every attack, and which one fooled the others."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.attacks.cascade import Cascade
from trainers.attacks.search import misclassified
from trainers.evaluation.attack_run import AttackRun, Effort
from trainers.modes import mode
from trainers.types import Batch, Model

WRONG, ROBUST = "clean", ""


@dataclass(frozen=True)
class Verdicts:
    """Per example, in the order they came: ``ids``, ``y``, ``clean`` and ``attacked`` predictions ``(N,) int64``,
    ``distance`` of the adversarial example (0 without one), and ``by``: the attack that fooled it, ``"clean"`` where
    it is wrong as it is and ``""`` where it withstood them all."""

    ids: Tensor
    y: Tensor
    clean: Tensor
    attacked: Tensor
    distance: Tensor
    by: tuple[str, ...]

    @property
    def robust(self) -> Tensor:
        return torch.tensor([name == ROBUST for name in self.by])

    @property
    def clean_accuracy(self) -> float:
        return float((self.clean == self.y).double().mean())

    @property
    def robust_accuracy(self) -> float:
        return float(self.robust.double().mean())


def evaluate(
    cascade: Cascade, model: Model, batches: Callable[[], Iterable[Batch]], classes: int, effort: Effort | None = None
) -> Verdicts:
    """``batches()`` gives the same examples, with ids as ``keys``, each time it is called: once an attack.

    Errors: ``ValueError`` for no examples, ids that are not unique, labels or images that do not fit.
    """
    effort = effort or Effort()
    ids, y, clean, right = _clean(model, batches, classes)
    place = {int(i): row for row, i in enumerate(ids.tolist())}
    if len(place) < len(ids):
        raise ValueError("two examples have the same id: verdicts are told apart by it; give each its own")
    by = [ROBUST if r else WRONG for r in right.tolist()]
    attacked, distance = clean.clone(), torch.zeros(len(ids), dtype=torch.float64)
    for attack in cascade.members:
        left = ids[torch.tensor([name == ROBUST for name in by])]
        for ended in AttackRun(attack, model, only(batches(), left), classes, effort):
            for i, fooled, seen, far in zip(
                ended.ids.tolist(),
                ended.fooled.tolist(),
                ended.prediction.tolist(),
                ended.distance.tolist(),
                strict=True,
            ):
                if fooled:
                    by[place[i]], attacked[place[i]], distance[place[i]] = attack.name, seen, far
    return Verdicts(ids, y, clean, attacked, distance, tuple(by))


def only(batches: Iterable[Batch], ids: Tensor) -> Iterator[Batch]:
    """Of each batch the examples with these ids."""
    for batch in batches:
        rows = torch.isin(batch.keys, ids.to(batch.keys.device)).nonzero()[:, 0]
        if len(rows):
            yield Batch(batch.x[rows], batch.y[rows], batch.keys[rows])


@torch.no_grad()
def _clean(model: Model, batches: Callable[[], Iterable[Batch]], classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found: list[tuple[Tensor, ...]] = []
    with mode(model, train=False):
        for batch in batches():
            check(batch, classes)
            logits = model(batch.x)
            if logits.shape != (len(batch.x), classes):
                raise ValueError(
                    f"the model gives {tuple(logits.shape)} for {len(batch.x)} images of {classes} classes; it must "
                    "give one logit a class, (N, K)"
                )
            right = ~misclassified(logits, batch.y)
            found.append(tuple(t.cpu() for t in (batch.keys, batch.y, logits.argmax(1), right)))
    if not found:
        raise ValueError("no examples to evaluate on: the split is empty; choose another")
    ids, y, clean, right = (torch.cat(parts) for parts in zip(*found, strict=True))
    return ids, y, clean, right


def check(batch: Batch, classes: int) -> None:
    """``ValueError`` for images outside [0, 1] and labels that are no class of the model's."""
    low, high = float(batch.x.min()), float(batch.x.max())
    if not (low >= 0 and high <= 1):
        cause = "8-bit images that were not divided by 255" if high > 1.5 and low >= 0 else "images already normalised"
        raise ValueError(
            f"images reach from {low:.4g} to {high:.4g}, not within [0, 1]: probably {cause}; give pixels in [0, 1], "
            "the model normalises them itself"
        )
    low_y, high_y = int(batch.y.min()), int(batch.y.max())
    if low_y < 0 or high_y >= classes:
        raise ValueError(f"labels reach from {low_y} to {high_y}, the model has {classes} classes, 0 to {classes - 1}")

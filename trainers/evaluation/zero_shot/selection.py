"""Choosing a method's settings on training classes held out: never on what it is judged on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from trainers import noise
from trainers.evaluation.zero_shot.compatibility import Method, seen_of
from trainers.evaluation.zero_shot.scores import per_class

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Selected(Generic[M]):
    """``method``: the best of those tried; ``accuracies``: of each, in their order, on the classes held out."""

    method: M
    accuracies: tuple[float, ...]


def folds(classes: Tensor, count: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    """The distinct ``classes``, dealt into ``count`` sets in an order keyed by ``seed``.

    Errors: ``ValueError`` where a set would have fewer than 2 classes, or leave fewer than 2.
    """
    seen = classes.unique()
    if count < 2 or len(seen) < 2 * count:
        raise ValueError(
            f"zero_shot.folds={count} of {len(seen)} training classes: choose at least 2, and at most "
            f"{len(seen) // 2}, so that each holds 2 classes out"
        )
    dealt = seen[noise.permutation(len(seen), seed)]
    return tuple(dealt[fold::count].sort().values for fold in range(count))


def select(
    methods: Sequence[M], features: Tensor, classes: Tensor, attributes: Tensor, held_out: Sequence[Tensor]
) -> Selected[M]:
    """The method with the highest per-class accuracy on the sets of classes in ``held_out``; of equal ones the first.

    For each set every method learns from the examples of all other classes and chooses among those of the set, as it
    will among unseen ones; the accuracies of the sets are averaged.

    Errors: ``ValueError`` without methods or sets, for a set without two classes that have examples or that leaves
    fewer than two.
    """
    if not methods or not held_out:
        raise ValueError("nothing to choose from: give methods, and classes to hold out")
    seen, _ = seen_of(features, classes, attributes)
    accuracies = torch.zeros(len(methods), dtype=torch.float64)
    for out in held_out:
        if len(out) < 2 or len(seen) - len(out) < 2 or not torch.isin(out, seen).all():
            raise ValueError(
                f"held-out classes {out.tolist()[:5]} must be at least 2 of the {len(seen)} training classes, and "
                "leave 2 to learn from"
            )
        asked = torch.isin(classes, out)
        for i, method in enumerate(methods):
            learnt = method(features[~asked], classes[~asked], attributes)
            right, n = per_class(learnt.predict(features[asked], attributes, out), classes[asked], out)
            accuracies[i] += (right.double() / n).mean() / len(held_out)
    return Selected(methods[int(accuracies.argmax())], tuple(accuracies.tolist()))

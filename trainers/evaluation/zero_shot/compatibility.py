"""A bilinear score of image features and class attributes: what every method here learns."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Compatibility:
    """``F(x, k) = xᵀ V a_k`` with ``matrix`` ``V (d, a) float64``."""

    matrix: Tensor

    def scores(self, features: Tensor, attributes: Tensor) -> Tensor:
        """``(n, K) float64`` of ``features (n, d)`` and ``attributes (K, a)``."""
        wanted = (features.shape[1], attributes.shape[1])
        if tuple(self.matrix.shape) != wanted:
            raise ValueError(
                f"features of {wanted[0]} entries and attributes of {wanted[1]} do not fit the compatibility, "
                f"{tuple(self.matrix.shape)}: give those of the backbone and the classes it was learnt from"
            )
        return features.double() @ self.matrix @ attributes.double().T

    def predict(self, features: Tensor, attributes: Tensor, candidates: Tensor) -> Tensor:
        """``(n,) int64``: of the class numbers ``candidates``, rows of ``attributes``, the one that scores highest;
        of equal ones the first."""
        if not len(candidates):
            raise ValueError("candidates is empty: name the classes to choose from")
        return candidates[self.scores(features, attributes[candidates]).argmax(1)]


class Method(Protocol):
    """Learns from ``features (n, d)``, ``classes (n,) int64``, rows of ``attributes (K, a)``; a class without an
    example is not looked at."""

    def __call__(self, features: Tensor, classes: Tensor, attributes: Tensor) -> Compatibility: ...


def seen_of(features: Tensor, classes: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
    """``(seen (k,), position (n,))``: the classes with examples, and each example's class as a position among them.

    Errors: ``ValueError`` for what nothing can be learnt from.
    """
    if features.ndim != 2 or attributes.ndim != 2:
        raise ValueError(
            f"features {tuple(features.shape)} and attributes {tuple(attributes.shape)} must be tables, a row an "
            "example and a row a class"
        )
    if len(features) != len(classes):
        raise ValueError(f"there are {len(features)} features and {len(classes)} classes: give one class an example")
    for name, table in (("features", features), ("attributes", attributes)):
        if not table.isfinite().all():
            raise ValueError(f"{name} has values that are not finite: repair the backbone or the attribute table")
    seen, position = classes.unique(return_inverse=True)
    if len(seen) < 2:
        raise ValueError(f"there are examples of {len(seen)} class(es): give at least 2 to tell apart")
    if int(seen[0]) < 0 or int(seen[-1]) >= len(attributes):
        raise ValueError(
            f"class {int(seen[0] if seen[0] < 0 else seen[-1])} has no row among the {len(attributes)} of attributes: "
            "number classes from 0, in the order of their attributes"
        )
    return seen, torch.as_tensor(position)

"""Two measurements of the same examples, each right or wrong: which is better, by how much, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from trainers.evaluation.intervals import mcnemar, paired_difference


@dataclass(frozen=True)
class Paired:
    """``n`` examples, of which ``a`` and ``b`` are right in the first and in the second measurement, ``gained`` in the
    second only and ``lost`` in the first only.  ``difference``: of the shares, ``(b - a) / n``, with its 95 %
    ``interval`` (``intervals.paired_difference``); ``p``: McNemar's, exact."""

    n: int
    a: int
    b: int
    gained: int
    lost: int
    difference: float
    interval: tuple[float, float]
    p: float


def paired(a: np.ndarray, b: np.ndarray) -> Paired:
    """``a``, ``b``: ``(n,) bool``, right or not, of the same examples in the same order.

    Errors: ``ValueError`` for different lengths and for no examples.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} examples cannot be paired: give the same ones in the same order")
    gained, lost, n = int((b & ~a).sum()), int((a & ~b).sum()), len(a)
    interval = paired_difference(gained, lost, n)
    return Paired(n, int(a.sum()), int(b.sum()), gained, lost, (gained - lost) / n, interval, mcnemar(gained, lost))

"""The share of its largest value at which a map becomes a box: fixed, or swept where that is allowed."""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainers import distributed
from trainers.evaluation.localisation.boxes import check_threshold

GRID = tuple(k / 20 for k in range(20))
"""0, 0.05 ... 0.95."""


@dataclass(frozen=True)
class Overlaps:
    """How well this rank's examples were localised, at every threshold.

    ``keys (N,) int64``; ``iou (N, T)``: the best over the image's true boxes, 0 without a box on either side;
    ``right (N,) bool``: whether its class was predicted.  ``split``: where the examples are from.
    """

    split: str
    thresholds: tuple[float, ...]
    keys: Tensor
    iou: Tensor
    right: Tensor

    def at(self, threshold: float) -> Tensor:
        """The column ``(N,)`` of a threshold that was looked at."""
        if threshold not in self.thresholds:
            known = ", ".join(f"{value:g}" for value in self.thresholds)
            raise ValueError(f"localisation.threshold={threshold:g} was not looked at: choose one of {known}")
        return self.iou[:, self.thresholds.index(threshold)]


@dataclass(frozen=True)
class Threshold:
    """A ``value`` in [0, 1), and what it was chosen on: nothing, or the examples ``keys``, which it must not judge."""

    value: float
    keys: frozenset[int] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        check_threshold(self.value)

    def check(self, keys: Tensor) -> None:
        """``ValueError`` if one of the examples to judge is among those it was chosen on."""
        if used := self.keys.intersection(keys.tolist()):
            raise ValueError(
                f"localisation.threshold={self.value:g} would be a threshold swept on test data: {len(used)} of these "
                f"examples chose it (id {min(used)}); choose it on a held-out split, or fix it beforehand"
            )


def swept(overlaps: Overlaps, min_iou: float = 0.5) -> Threshold:
    """The threshold of the most boxes with an IoU of at least ``min_iou``, the lowest of equals, over all ranks.

    Errors: ``ValueError`` on a test split, and without examples.
    Source: Choe et al. 2020 (2001.07437): thresholds chosen on the images that are judged flatter every method.
    """
    if overlaps.split == "test":
        raise ValueError(
            "localisation.split=test: refused, a threshold swept on test data; sweep it on split=validation, fix it "
            "beforehand, or report max_box_accuracy, which says in its name that it is a maximum"
        )
    hits, n = _hits(overlaps, min_iou)
    if n == 0:
        raise ValueError("no examples to choose a threshold on: the split is empty; choose another")
    keys = distributed.merge(Counter(str(key) for key in overlaps.keys.tolist()))
    return Threshold(overlaps.thresholds[int(hits.argmax())], frozenset(int(key) for key in keys))


def max_box_accuracy(overlaps: Overlaps, min_iou: float = 0.5) -> float:
    """The largest share, over all thresholds, of boxes with an IoU of at least ``min_iou``: MaxBoxAcc.

    A maximum over thresholds on the images it judges: an upper end, for comparing maps with each other.  No interval
    goes with it.  Source: Choe et al. 2020 (2001.07437).
    """
    hits, n = _hits(overlaps, min_iou)
    if n == 0:
        raise ValueError("no examples to localise: the split is empty; choose another")
    return int(hits.max()) / n


def max_box_accuracy_v2(overlaps: Overlaps) -> float:
    """The mean of ``max_box_accuracy`` at IoU 0.3, 0.5 and 0.7, here always of a map's one box."""
    return sum(max_box_accuracy(overlaps, min_iou) for min_iou in (0.3, 0.5, 0.7)) / 3


def _hits(overlaps: Overlaps, min_iou: float) -> tuple[Tensor, int]:
    """``(T,)`` boxes that are good enough at each threshold, and the examples, over all ranks."""
    if not 0 < min_iou <= 1:
        raise ValueError(f"localisation.min_iou={min_iou:g} must be in (0, 1]; 0.5 is usual")
    hits = (overlaps.iou >= min_iou).sum(0)
    *counts, n = distributed.total(torch.cat([hits, torch.tensor([len(overlaps.iou)])])).tolist()
    return torch.tensor(counts), n

"""How many objects a map finds: GT-known and Top-1 localisation."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainers import distributed, losses
from trainers.evaluation.intervals import wilson
from trainers.evaluation.localisation.boxes import find_boxes, iou
from trainers.evaluation.localisation.explained import ClassMap
from trainers.evaluation.localisation.thresholds import (
    GRID,
    Overlaps,
    Threshold,
    max_box_accuracy,
    max_box_accuracy_v2,
)
from trainers.modes import mode
from trainers.types import Batch, Model


@dataclass(frozen=True)
class Share:
    """``successes`` of ``n``, and Wilson's 95% interval of their share."""

    successes: int
    n: int

    @property
    def value(self) -> float:
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.successes, self.n)


@dataclass(frozen=True)
class Localisation:
    """Yields ``gt_known_localisation`` (IoU >= 0.5, whatever class is predicted), ``top1_localisation`` (IoU >= 0.5,
    and the class right), ``top1_accuracy``, and the maxima over thresholds ``max_box_accuracy`` and
    ``max_box_accuracy_v2``: means over every example of every rank.

    ``boxes``: for each example's id its true boxes ``(B, 4)`` in the pixels of the images as they are judged; the best
    counts.  An image whose boxes were all cropped away counts as missed.  ``of``: the class whose map is taken, the
    "given" or the "predicted" one; Top-1 localisation is the same by either.  ``threshold``: 0.2 is the published one
    of gradient maps and of CAM; for one of your own, ``swept(overlaps on a validation split)``.

    Source: Choe et al. 2020 (2001.07437) for the protocol, Zhou et al. 2016 (1512.04150) for 0.2, Singh et al. 2019
    (1911.13073) for 0.2 of gradient maps.
    Errors: ``ValueError`` for an image without an entry in ``boxes``, a split without images, and a threshold that was
    chosen on images it judges.
    """

    maps: ClassMap
    boxes: Mapping[int, Tensor] = field(repr=False)
    threshold: Threshold = Threshold(0.2)
    of: str = "given"
    thresholds: tuple[float, ...] = GRID

    def __post_init__(self) -> None:
        if self.of not in ("given", "predicted"):
            raise ValueError(f"localisation.of={self.of!r} must be the 'given' or the 'predicted' class")
        if not self.thresholds:
            raise ValueError("localisation.thresholds is empty: give those that are swept, such as 0, 0.05 ... 0.95")
        for threshold in self.thresholds:
            Threshold(threshold)

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        overlaps = self.overlaps(model, batches, "test")
        yield from ((name, share.value) for name, share in self.shares(overlaps))
        yield "max_box_accuracy", max_box_accuracy(overlaps)
        yield "max_box_accuracy_v2", max_box_accuracy_v2(overlaps)

    def shares(self, overlaps: Overlaps) -> Iterator[tuple[str, Share]]:
        """The first three, with their counts and intervals, at ``threshold``."""
        self.threshold.check(overlaps.keys)
        known = overlaps.at(self.threshold.value) >= 0.5
        counts = [known.sum(), (known & overlaps.right).sum(), overlaps.right.sum(), torch.tensor(len(known))]
        *successes, n = distributed.total(torch.stack(counts)).tolist()
        if n == 0:
            raise ValueError("no examples to localise: the split is empty; choose another")
        names = ("gt_known_localisation", "top1_localisation", "top1_accuracy")
        yield from ((name, Share(count, n)) for name, count in zip(names, successes, strict=True))

    def overlaps(self, model: Model, batches: Iterable[Batch], split: str) -> Overlaps:
        """Of this rank's examples, at ``threshold`` and all of ``thresholds``; ``split``: where they are from."""
        thresholds = tuple(sorted({*self.thresholds, self.threshold.value}))
        keys, right = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.bool)]
        overlap = [torch.zeros(0, len(thresholds), dtype=torch.float64)]
        with mode(model, train=False):
            for batch in batches:
                truths = [self._truth(key) for key in batch.keys.tolist()]
                self.threshold.check(batch.keys)
                maps = self.maps(model, batch.x, batch.y if self.of == "given" else None)
                overlap.append(_best(maps, truths, thresholds))
                right.append(_right(model, batch))
                keys.append(batch.keys.cpu())
        return Overlaps(split, thresholds, torch.cat(keys), torch.cat(overlap), torch.cat(right))

    def _truth(self, key: int) -> Tensor:
        if key not in self.boxes:
            raise ValueError(
                f"localisation.boxes has none for the image of id {key}: annotate it, leave it out, or give it an "
                "empty (0, 4) to count it as missed"
            )
        return self.boxes[key]


def _best(maps: Tensor, truths: list[Tensor], thresholds: tuple[float, ...]) -> Tensor:
    """``(N, T)``: each map's IoU with the best of its image's true boxes."""
    found = torch.stack([find_boxes(maps, threshold) for threshold in thresholds], 1)
    none = torch.zeros(1, 4, dtype=torch.float64)
    return torch.stack(
        [iou(own, torch.cat([none, truth.double().cpu()])).amax(1) for own, truth in zip(found, truths, strict=True)]
    )


def _right(model: Model, batch: Batch) -> Tensor:
    with torch.no_grad():
        logits = model(batch.x)
    return ((logits.argmax(1) == losses.hard(batch.y)) & ~logits.isnan().any(1)).cpu()

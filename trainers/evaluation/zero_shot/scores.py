"""Zero-shot accuracies in which every class weighs the same, and how sure they are."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.data.zero_shot_splits import ZeroShotSet
from trainers.evaluation.zero_shot.compatibility import Compatibility


class Score(NamedTuple):
    """A share in [0, 1] and its interval."""

    value: float
    low: float
    high: float


class Scores(NamedTuple):
    """``t1``: unseen classes, chosen among the unseen.  ``unseen``, ``seen``: the images of either, chosen among all
    classes.  ``harmonic``: of these two."""

    t1: Score
    unseen: Score
    seen: Score
    harmonic: Score


def judge(compatibility: Compatibility, task: ZeroShotSet, confidence: float = 0.95) -> Scores:
    """T1, U, S and H of ``compatibility`` on the test splits of ``task``.

    Source: Xian, Lampert, Schiele and Akata, 1707.00600, section 4: per-class top-1, and generalised zero-shot
    learning, in which all seen and unseen classes are candidates.
    """
    every = torch.cat([task.seen, task.unseen]).sort().values

    def share(rows: Tensor, classes: Tensor, candidates: Tensor) -> Score:
        predicted = compatibility.predict(task.features[rows], task.attributes, candidates)
        right, n = per_class(predicted, task.classes[rows], classes, task.names)
        return mean_share(right, n, confidence)

    tested = task.classes[task.test_seen_loc].unique()
    t1 = share(task.test_unseen_loc, task.unseen, task.unseen)
    u, s = share(task.test_unseen_loc, task.unseen, every), share(task.test_seen_loc, tested, every)
    return Scores(t1, u, s, harmonic(u, s))


def per_class(
    predicted: Tensor, classes: Tensor, over: Tensor, names: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """``(right, n)``, each ``(len(over),) int64``: of each class of ``over`` the examples predicted rightly, and all.

    Errors: ``ValueError`` naming a class without examples: it has no accuracy to average.
    """
    n = (classes[:, None] == over).sum(0)
    if len(empty := over[n == 0].tolist()):
        shown = f"{names[empty[0]]!r}" if names else f"{empty[0]}"
        raise ValueError(
            f"no example of class {shown} ({len(empty)} of {len(over)} classes) to judge: add examples, or leave the "
            "class out"
        )
    return ((classes[:, None] == over) & (predicted == classes)[:, None]).sum(0), n


def mean_share(right: Tensor, n: Tensor, confidence: float = 0.95) -> Score:
    """``p̄ = Σ_k p_k / K`` with ``p_k = right_k / n_k``, sure over the examples of these classes: no others are drawn.

    Wilson's interval of ``p̄`` at ``m = p̄ (1 - p̄) / v`` examples, ``v = Σ_k q_k (1 - q_k) / n_k / K²`` the variance
    of ``p̄`` with each share drawn to the mean by one example, ``q_k = (right_k + p̄) / (n_k + 1)``; at ``p̄`` of 0 or
    1 ``m = K² / Σ_k 1/n_k``.  Of one class it is Wilson's own.

    Resampling the examples of each class agrees where classes are large and shares well inside (0, 1).  Elsewhere its
    intervals are too short, and of no length where all is right: of 10 classes of 5 examples with shares about 0.99,
    95 % of them held the truth 4 times in 10.

    Source: Wilson's interval at an effective number of examples, as for surveys in strata: Korn and Graubard,
    *Confidence intervals for proportions with small expected number of positive counts estimated from survey data*,
    Survey Methodology 24 (1998) 193-201, there for the exact binomial; the drawing to the mean is ours.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence:g} must be in (0, 1), such as 0.95")
    mean, count = float((right / n.double()).mean()), len(n)
    if right.sum() in (0, n.sum()):
        examples = count**2 / float((1 / n.double()).sum())
    else:
        drawn = (right + mean) / (n.double() + 1)
        examples = mean * (1 - mean) * count**2 / float((drawn * (1 - drawn) / n).sum())
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre, half = mean + z * z / (2 * examples), z * math.sqrt((mean * (1 - mean) + z * z / (4 * examples)) / examples)
    low, high = ((centre + end) / (1 + z * z / examples) for end in (-half, half))
    return Score(mean, min(max(low, 0.0), mean), max(min(high, 1.0), mean))


def harmonic(unseen: Score, seen: Score) -> Score:
    """``H = 2 U S / (U + S)``, 0 where both are; its interval from how far it moves with either end of U and of S,
    squared and added: the two are measured on different examples.

    Source: Zou and Donner, *Construction of confidence limits about effect measures: a general approach*, Statistics
    in Medicine 27 (2008) 1693-1702, which adds the squares of differences; here of a mean.
    """

    def mean(u: float, s: float) -> float:
        return 2 * u * s / (u + s) if u + s else 0.0

    h = mean(unseen.value, seen.value)
    low = h - math.hypot(h - mean(unseen.low, seen.value), h - mean(unseen.value, seen.low))
    high = h + math.hypot(mean(unseen.high, seen.value) - h, mean(unseen.value, seen.high) - h)
    return Score(h, max(low, 0.0), min(high, 1.0))

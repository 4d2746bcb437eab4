"""Per-class accuracies and their intervals: by hand, against Wilson's, against resampling, and how often they hold."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from trainers.data.zero_shot_splits import ZeroShotSet
from trainers.evaluation.intervals import wilson
from trainers.evaluation.zero_shot.compatibility import Compatibility
from trainers.evaluation.zero_shot.eszsl import ESZSL
from trainers.evaluation.zero_shot.probe import measure
from trainers.evaluation.zero_shot.scores import Score, harmonic, judge, mean_share, per_class


def one_hot_task() -> ZeroShotSet:
    """Six classes with attributes ``e_k``; an image's features are what the identity scores each class with."""
    told = [0, 0, 1, 1, 2, 2, 3, 3, 0, 4, 1, 4, 4, 5, 5, 0, 5]
    true = [0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 4, 4, 4, 4, 5, 5]
    features = torch.eye(6)[told].double()
    features[15] += 0.5 * torch.eye(6)[5]  # told 0 among all, 5 among the unseen
    return ZeroShotSet(
        features,
        torch.tensor(true),
        torch.eye(6).double(),
        tuple("abcdef"),
        trainval_loc=torch.arange(8),
        test_seen_loc=torch.arange(8, 11),
        test_unseen_loc=torch.arange(11, 17),
    )


IDENTITY = Compatibility(torch.eye(6).double())


def test_each_class_weighs_the_same_and_candidates_differ():
    """Of class 4 the half is right; of 5 one of two, both when only unseen classes may be named.  Of the seen, class 0
    is right in one of two, 1 in one of one; 2 and 3 are not tested, and do not count."""
    scores = judge(IDENTITY, one_hot_task())
    assert scores.t1.value == pytest.approx((0.5 + 1) / 2)
    assert scores.unseen.value == pytest.approx((0.5 + 0.5) / 2)
    assert scores.seen.value == pytest.approx((0.5 + 1) / 2)
    assert scores.harmonic.value == pytest.approx(2 * 0.5 * 0.75 / 1.25)
    for score in scores:
        assert 0 <= score.low <= score.value <= score.high <= 1


def test_repeating_the_images_of_one_class_changes_no_value():
    task = one_hot_task()
    rows = torch.cat([torch.arange(17), torch.tensor([11, 12, 13, 14])])
    more = dataclasses.replace(
        task,
        features=task.features[rows],
        classes=task.classes[rows],
        test_unseen_loc=torch.cat([torch.arange(11, 21)]),
    )
    for before, after in zip(judge(IDENTITY, task), judge(IDENTITY, more), strict=True):
        assert after.value == pytest.approx(before.value)


def test_the_order_of_images_and_the_scale_of_scores_change_nothing():
    task = one_hot_task()
    shuffled = dataclasses.replace(
        task, test_seen_loc=task.test_seen_loc.flip(0), test_unseen_loc=task.test_unseen_loc.roll(2)
    )
    scaled = Compatibility(3 * IDENTITY.matrix)
    assert judge(scaled, shuffled) == judge(IDENTITY, task)


def test_generalised_accuracy_never_exceeds_the_conventional():
    """More candidates can only take examples away."""
    task = one_hot_task()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = judge(Compatibility(torch.randn(6, 6, generator=generator).double()), task)
        assert scores.unseen.value <= scores.t1.value


def test_a_class_without_examples_is_named():
    with pytest.raises(ValueError, match=r"no example of class 'c' \(1 of 2 classes\)"):
        per_class(torch.tensor([0]), torch.tensor([0]), torch.tensor([0, 2]), names="abc")
    with pytest.raises(ValueError, match=r"no example of class 2"):
        per_class(torch.tensor([0]), torch.tensor([0]), torch.tensor([0, 2]))


@pytest.mark.parametrize(("u", "s", "h"), [(0.5, 0.5, 0.5), (1, 1, 1), (0.2, 0.6, 0.3), (0, 0.9, 0), (0, 0, 0)])
def test_harmonic_means(u, s, h):
    assert harmonic(Score(u, u, u), Score(s, s, s)) == pytest.approx((h, h, h))
    wide = harmonic(Score(u, u / 2, (1 + u) / 2), Score(s, s / 2, (1 + s) / 2))
    assert 0 <= wide.low <= wide.value <= wide.high <= 1
    assert wide == pytest.approx(harmonic(Score(s, s / 2, (1 + s) / 2), Score(u, u / 2, (1 + u) / 2)))


@pytest.mark.parametrize(("right", "n"), [(0, 4), (1, 4), (30, 40), (7, 7)])
def test_of_one_class_the_interval_is_wilson_s(right, n):
    score = mean_share(torch.tensor([right]), torch.tensor([n]))
    assert score == pytest.approx((right / n, *wilson(right, n)))


@pytest.mark.parametrize("right", [0, 5])
def test_alike_classes_of_one_size_that_are_all_right_or_wrong_are_one_large_class(right):
    score = mean_share(torch.full((8,), right), torch.full((8,), 5))
    assert score == pytest.approx((right / 5, *wilson(8 * right, 40)))


def test_large_classes_agree_with_resampling_their_examples():
    n = np.array([150, 400, 90, 260, 120])
    right = np.array([100, 130, 45, 90, 80])
    draws = np.random.default_rng(0).binomial(n, right / n, size=(20_000, 5)) / n
    low, high = np.quantile(draws.mean(1), [0.025, 0.975])
    score = mean_share(torch.from_numpy(right), torch.from_numpy(n))
    assert (score.low, score.high) == pytest.approx((low, high), abs=0.002)
    seen = np.random.default_rng(1).binomial(n[::-1], 0.6, size=5)
    other = np.random.default_rng(2).binomial(n[::-1], seen / n[::-1], size=(20_000, 5)) / n[::-1]
    u, s = draws.mean(1), other.mean(1)
    low, high = np.quantile(2 * u * s / (u + s), [0.025, 0.975])
    h = harmonic(score, mean_share(torch.from_numpy(seen), torch.from_numpy(n[::-1].copy())))
    assert (h.low, h.high) == pytest.approx((low, high), abs=0.003)


@pytest.mark.parametrize(("classes", "n", "p"), [(16, 10, 0.98), (10, 5, 0.5), (50, 10, 0.03)])
def test_intervals_hold_the_truth_as_often_as_they_say(classes, n, p):
    """At least 0.92 of 0.95, four standard errors of 500 draws below; resampling's hold it less often."""
    rng, held, resampled = np.random.default_rng(0), 0, 0
    for _ in range(500):
        shares = rng.beta(2 * p, 2 * (1 - p), classes)
        right = rng.binomial(n, shares)
        score = mean_share(torch.from_numpy(right), torch.full((classes,), n))
        held += score.low <= shares.mean() <= score.high
        draws = rng.binomial(n, right / n, size=(200, classes)).mean(1) / n
        resampled += np.quantile(draws, 0.025) <= shares.mean() <= np.quantile(draws, 0.975)
    assert held / 500 > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 500)
    assert held > resampled


@pytest.mark.parametrize("confidence", [0, 1, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ValueError, match=r"confidence=.*\(0, 1\)"):
        mean_share(torch.tensor([1]), torch.tensor([2]), confidence)


def test_measures_come_by_name_and_the_task_s_own_validation_classes_are_used():
    task = dataclasses.replace(one_hot_task(), validation=(1, 3))
    met = []

    class Watching:
        def __call__(self, features, classes, attributes):
            met.append(sorted(set(classes.tolist())))
            return ESZSL()(features, classes, attributes)

    found = dict(measure(task, (Watching(),)))
    assert met == [[0, 2], [0, 1, 2, 3]]
    assert found["zero_shot_chance"] == 0.5
    assert set(found) == {"zero_shot_chance"} | {
        f"zero_shot_{name}{end}" for name in ("t1", "unseen", "seen", "harmonic") for end in ("", "_low", "_high")
    }
    with pytest.raises(ValueError, match=r"zero_shot.folds=3 of 4 training classes"):
        dict(measure(one_hot_task()))

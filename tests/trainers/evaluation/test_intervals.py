"""Intervals against published values, their defining equations, and the coverage they promise."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import binomtest, norm

from trainers.evaluation.intervals import difference, mcnemar, paired_difference, paired_score, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("confidence", "z"), [(0.95, 1.959963985), (0.99, 2.575829304)])
def test_the_ends_are_the_shares_that_a_score_test_just_accepts(confidence, z):
    for p in wilson(37, 50, confidence):
        assert abs(37 / 50 - p) == pytest.approx(z * math.sqrt(p * (1 - p) / 50), rel=1e-6)


def test_it_stays_in_the_unit_interval_and_is_symmetric():
    assert wilson(0, 7)[0] == 0
    assert wilson(7, 7)[1] == 1
    low, high = wilson(2, 7)
    assert wilson(5, 7) == pytest.approx((1 - high, 1 - low))


def test_five_thousand_examples_are_sure_to_one_and_a_half_points():
    low, high = wilson(2500, 5000)
    assert (high - low) / 2 == pytest.approx(0.01385, abs=1e-4)


@pytest.mark.parametrize("call", [(0, 0), (-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 95)])
def test_what_is_no_share_is_refused(call):
    with pytest.raises(ValueError, match=r"successes=|confidence="):
        wilson(*call)


def test_a_paired_difference_by_hand():
    """(4 - 1) / 32 with half an example in each cell: SE = sqrt(5 + 1 - 9 / 32) / 32."""
    half = 1.959963985 * math.sqrt(6 - 9 / 32) / 32
    assert paired_difference(4, 1, 30) == pytest.approx((3 / 32 - half, 3 / 32 + half))
    assert paired_difference(1, 4, 30) == pytest.approx((-3 / 32 - half, -3 / 32 + half))


def test_a_paired_difference_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    for gained, lost, n in ((0.02, 0.02, 200), (0.1, 0.03, 60), (0.3, 0.1, 40)):
        counts = random.multinomial(n, (gained, lost, 1 - gained - lost), size=4000)
        ends = np.array([paired_difference(int(g), int(h), n) for g, h, _ in counts])
        covered = (ends[:, 0] <= gained - lost) & (gained - lost <= ends[:, 1])
        assert covered.mean() > 0.93


@pytest.mark.parametrize("counts", [(1, 1, 1), (-1, 0, 5), (0, 0, 0)])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="do not fit"):
        paired_difference(*counts)


@pytest.mark.parametrize(
    ("first", "n", "second", "m", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 873-890, table II, method 10
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (6, 7, 2, 7, 0.0582, 0.8062),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (0, 10, 0, 20, -0.1611, 0.2775),
        (10, 10, 0, 20, 0.6791, 1.0),
    ],
)
def test_published_values_of_a_difference(first, n, second, m, low, high):
    assert difference(first, n, second, m) == pytest.approx((low, high), abs=5e-5)
    assert difference(second, m, first, n) == pytest.approx((-high, -low), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 3), (40, 1000)])
def test_a_difference_is_within_its_interval_which_confidence_widens(n, m, confidence):
    for first, second in ((0, 0), (n, 0), (0, m), (n, m), (n // 2, m // 3)):
        low, high = difference(first, n, second, m, confidence)
        assert -1 <= low <= first / n - second / m <= high <= 1
        wider = difference(first, n, second, m, (1 + confidence) / 2)
        assert wider[0] <= low < high <= wider[1]


def test_a_difference_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(3)
    for p, n, q, m in ((0.9, 100, 0.85, 60), (0.5, 40, 0.5, 40), (0.98, 200, 0.95, 50)):
        ends = [
            difference(int(a), n, int(b), m, 0.9)
            for a, b in zip(random.binomial(n, p, 3000), random.binomial(m, q, 3000), strict=True)
        ]
        low, high = np.array(ends).T
        assert 0.88 < np.mean((low <= p - q) & (p - q <= high)) < 0.95
        assert np.mean(low > p - q) < 0.075


@pytest.mark.parametrize("call", [(0, 0, 1, 2), (1, 2, 3, 2), (1, 2, -1, 2), (1, 2, 1, 2, 1.0)])
def test_a_difference_of_what_is_no_share_is_refused(call):
    with pytest.raises(ValueError, match=r"successes=|confidence="):
        difference(*call)


def test_mcnemar_is_the_two_sided_binomial_test():
    for n in range(26):
        for gained in range(n + 1):
            expected = binomtest(gained, n, 0.5).pvalue if n else 1.0
            assert mcnemar(gained, n - gained) == pytest.approx(expected, rel=1e-12)
    for counts in ((90, 45), (700, 760), (3, 900)):
        assert mcnemar(*counts) == pytest.approx(binomtest(counts[0], sum(counts), 0.5).pvalue, rel=1e-9)


def test_mcnemar_by_hand_and_its_symmetries():
    """Of 14 and 2: ``2 (1 + 16 + 120) / 2^16``."""
    assert mcnemar(14, 2) == 274 / 65536 == mcnemar(2, 14)
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1
    assert mcnemar(0, 2000) < 1e-300
    values = [mcnemar(30 - k, k) for k in range(16)]
    assert values == sorted(values)


def test_mcnemar_keeps_its_level():
    """Where both models are equally good, p <= 0.05 comes no more often than that."""
    random = np.random.default_rng(1)
    n = random.integers(5, 60, 4000)
    p = [mcnemar(int(g), int(m - g)) for m, g in zip(n, random.binomial(n, 0.5), strict=True)]
    assert 0.01 < np.mean(np.array(p) <= 0.05) <= 0.05


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="lost=-1"):
        mcnemar(3, -1)


def most_likely_lost(gained: int, lost: int, n: int, margin: float) -> float:
    """The share lost ``q`` at which ``(q - margin, q, 1 - 2q + margin)`` makes the counts likeliest, by looking."""
    low, high = margin, (1 + margin) / 2
    for _ in range(8):
        q = np.linspace(low, high, 2001)
        same = np.maximum(1 - 2 * q + margin, 0)
        likelihood = xlogy(gained, q - margin) + xlogy(lost, q) + xlogy(n - gained - lost, same)
        best, step = int(likelihood.argmax()), q[1] - q[0]
        low, high = max(q[best] - step, margin), min(q[best] + step, (1 + margin) / 2)
    return float(q[best])


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.02, 0.1, 0.4])
@pytest.mark.parametrize(
    ("gained", "lost", "n"),
    [(20, 30, 540), (30, 20, 540), (0, 9, 100), (9, 0, 100), (0, 60, 100), (1, 1, 3), (400, 300, 700), (2, 900, 5000)],
)
def test_a_paired_score_is_at_the_likeliest_shares_that_differ_by_the_margin(gained, lost, n, margin):
    q = most_likely_lost(gained, lost, n, margin)
    variance = n * (2 * q - margin - margin**2)
    z = (gained - lost + n * margin) / math.sqrt(variance)
    assert paired_score(gained, lost, n, margin) == pytest.approx(norm.sf(z), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize(("gained", "lost", "n"), [(30, 20, 540), (20, 30, 540), (7, 7, 14), (5, 0, 100), (0, 5, 100)])
def test_a_paired_score_without_a_margin_is_mcnemars_one_sided(gained, lost, n):
    expected = norm.sf((gained - lost) / math.sqrt(gained + lost))
    assert paired_score(gained, lost, n) == pytest.approx(expected, rel=1e-9)
    assert paired_score(gained, lost, 10 * n) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("lost", [0, 1, 12, 40])
def test_a_paired_score_falls_with_every_example_gained(lost, margin):
    p = [paired_score(gained, lost, 200, margin) for gained in range(31)]
    assert all(b < a for a, b in pairwise(p))


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 12), (12, 0), (20, 25), (100, 100)])
def test_a_paired_score_falls_as_the_margin_grows(gained, lost):
    p = [paired_score(gained, lost, 200, margin) for margin in np.linspace(0, 0.2, 41)]
    assert all(b < a for a, b in pairwise(p))


def test_a_paired_score_of_no_difference_is_one_without_a_margin_and_enough_examples_pass_one():
    assert paired_score(0, 0, 7) == paired_score(0, 0, 10**6) == 1
    assert paired_score(0, 0, 50, 0.02) > 0.05 > paired_score(0, 0, 500, 0.02)
    assert paired_score(30, 30, 500, 0.02) > 0.05 > paired_score(300, 300, 50_000, 0.02)


def test_a_paired_score_keeps_its_level_at_the_margin():
    random = np.random.default_rng(2)
    for gained, lost, n in ((0.1, 0.1, 540), (0.09, 0.11, 540), (0.01, 0.03, 1000)):
        counts = random.multinomial(n, (gained, lost, 1 - gained - lost), size=4000)
        p = np.array([paired_score(int(g), int(h), n, lost - gained) for g, h, _ in counts])
        assert 0.03 < np.mean(p <= 0.05) < 0.06


@pytest.mark.parametrize("counts", [(1, 1, 1), (-1, 0, 5), (0, -1, 5), (0, 0, 0)])
def test_counts_of_a_paired_score_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match=r"gained=.* lost=.* do not fit into n="):
        paired_score(*counts)


@pytest.mark.parametrize("margin", [-0.01, 1.0, 2, math.nan])
def test_a_margin_that_is_no_share_is_refused(margin):
    with pytest.raises(ValueError, match=r"margin=.* such as 0\.02"):
        paired_score(3, 1, 10, margin)

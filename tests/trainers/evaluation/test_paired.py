import numpy as np
import pytest

from trainers.evaluation.intervals import mcnemar, paired_difference
from trainers.evaluation.paired import paired


def test_counts_by_hand():
    a = np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=bool)
    b = np.array([1, 0, 1, 1, 1, 1, 0, 1], dtype=bool)
    found = paired(a, b)
    assert (found.n, found.a, found.b, found.gained, found.lost) == (8, 4, 6, 3, 1)
    assert found.difference == 0.25
    assert found.interval == paired_difference(3, 1, 8)
    assert found.p == mcnemar(3, 1) == 0.625


def test_the_other_way_round_is_the_mirror_image():
    random = np.random.default_rng(0)
    for _ in range(50):
        a, b = random.random((2, random.integers(1, 90))) < random.random((2, 1))
        there, back = paired(a, b), paired(b, a)
        assert (there.gained, there.lost, there.a, there.b) == (back.lost, back.gained, back.b, back.a)
        assert there.b - there.a == there.gained - there.lost == round(there.difference * there.n)
        assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
        assert there.p == back.p


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="3 and 2 examples cannot be paired"):
        paired(np.ones(3, bool), np.ones(2, bool))
    with pytest.raises(ValueError, match="n=0"):
        paired(np.ones(0, bool), np.ones(0, bool))

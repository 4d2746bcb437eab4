"""The front, and what each rule chooses from it."""

import random

import pytest

from pipelines.errors import Misuse
from pipelines.search import front
from pipelines.search.front import Trial


def trial(name: str, clean: float, robust: float) -> Trial:
    return Trial(name, {"seed": 1}, clean, robust, 3, None, f"run-{name}")


TRIALS = [trial("a", 0.9, 0.3), trial("b", 0.8, 0.5), trial("c", 0.6, 0.6), trial("d", 0.7, 0.4), trial("e", 0.6, 0.5)]


def names(trials):
    return "".join(t.name for t in trials)


def test_the_front_holds_what_nothing_dominates():
    assert names(front.front(TRIALS)) == "cba"
    assert names(front.front([*TRIALS, trial("f", 0.9, 0.3)])) == "cbaf"  # as good in both: neither dominates
    assert front.front([]) == []


def test_of_many_none_on_the_front_is_dominated_and_all_others_are():
    draw = random.Random(0)
    many = [trial(str(i), draw.randrange(10) / 10, draw.randrange(10) / 10) for i in range(200)]
    edge = front.front(many)

    def beaten(t):
        return any(
            o.clean >= t.clean and o.robust >= t.robust and (o.clean, o.robust) != (t.clean, t.robust) for o in many
        )

    assert {t.name for t in edge} == {t.name for t in many if not beaten(t)}


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        ("robust", "cbeda"),
        ("robust_with_clean_0.7", "bdace"),
        ("robust_with_clean_0.95", "abdce"),
        ("knee", "b"),
    ],
)
def test_a_rule_ranks_all_of_them(choose, expected):
    ranked = front.ranked(TRIALS, front.rule(choose))
    assert names(ranked)[: len(expected)] == expected
    assert sorted(names(ranked)) == sorted(names(TRIALS))
    assert front.ranked(list(reversed(TRIALS)), choose) == ranked


def test_the_knee_of_one_is_that_one():
    assert names(front.ranked(TRIALS[:1], "knee")) == "a"


@pytest.mark.parametrize("choose", ["best", "robust_with_clean_", "robust_with_clean_2", "robust_with_clean_x", ""])
def test_an_unknown_rule_is_refused(choose):
    with pytest.raises(Misuse, match=f"^choose={choose} is unknown; choose robust, knee, or robust_with_clean_0.9"):
        front.rule(choose)

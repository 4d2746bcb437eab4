"""The gate's verdict over evidence made by hand: each clause alone."""

import pickle
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from pipelines.promotion.evidence import Evidence
from pipelines.promotion.gate import SAME, decide, weighed
from pipelines.promotion.policy import ANY, BETTER, NOT_WORSE, Policy
from tests.pipelines.promotion.by_hand import (
    ATTACK,
    DIGEST,
    L2,
    LINF,
    NETWORK,
    OTHER,
    TAKES,
    artefact,
    champion,
    clause,
    evidence,
    moved,
    names,
    policy,
    wrong_in,
)

OF_IT = ("artefact", "served graph", "input", "attacked network", "attack", "data", "doubts")
FLOORS = tuple(
    f"{what}{each}"
    for what, each in product(
        ("clean accuracy", f"robust accuracy, {LINF}", f"robust accuracy, {L2}"), ("", ", each class")
    )
)
AGAINST = tuple(f"{what}, against the champion" for what in FLOORS[::2])
BESIDE = ("same images, same attacks", "champion's artefact", *AGAINST)


def test_sound_evidence_passes_and_every_clause_is_stated_once():
    decision = decide(evidence(), champion(), policy())
    assert names(decision) == (*OF_IT, *FLOORS, *BESIDE)
    assert decision.passed
    assert decision.failed == ()
    assert (decision.candidate, decision.champion) == ("pets/2", "pets/1")
    assert all(clause.asked and clause.found for clause in decision.clauses)


def test_without_a_champion_nothing_is_compared():
    decision = decide(evidence(), None, policy(clean={"rule": BETTER}, robust={"rule": BETTER}))
    assert names(decision) == (*OF_IT, *FLOORS)
    assert decision.passed
    assert decision.champion is None


@pytest.mark.parametrize(
    ("name", "changes", "found"),
    [
        ("artefact", {"artefact": artefact(digest=OTHER)}, f"{OTHER[:12]}, registered as {DIGEST[:12]}"),
        ("artefact", {"artefact": artefact(registered=None)}, "no digest was registered"),
        ("served graph", {"artefact": artefact(difference=2 * SAME)}, "0.002 apart"),
        ("served graph", {"artefact": artefact(difference=float("nan"))}, "nan apart"),
        ("served graph", {"artefact": artefact(difference=0.0, problem="it fails: no such kernel")}, "no such kernel"),
        ("input", {"artefact": artefact(takes="no pixels, by its signature")}, "no pixels"),
        ("input", {"artefact": artefact(takes=f"{TAKES}, 64 at a time")}, "64 at a time"),
        ("input", {"artefact": artefact(judged=(3, 32, 32))}, "(3, 8, 8)"),
        ("attacked network", {"network": OTHER}, OTHER[:12]),
        ("attacked network", {"artefact": artefact(network=OTHER)}, NETWORK[:12]),
        ("attack", {"attack": {**ATTACK, "name": "PGD"}}, "PGD, then malt"),
        ("attack", {"beyond": ()}, "then none"),
        ("data", {"data": OTHER}, f"{OTHER[:12]}, 1,000 images"),
        ("doubts", {"doubts": ("zero gradients",)}, "zero gradients"),
        ("doubts", {"doubts": None}, "not looked for"),
    ],
)
def test_a_clause_of_the_candidate_fails_alone(name, changes, found):
    assert clause(decide(evidence(), None, policy()), name).passed
    decision = decide(evidence(**changes), None, policy())
    assert decision.failed == (name,)
    assert not decision.passed
    assert found in clause(decision, name).found
    assert names(decision) == (*OF_IT, *FLOORS)


def test_rounding_in_the_graph_that_is_served_passes():
    assert decide(evidence(artefact=artefact(difference=SAME)), None, policy()).passed


def test_what_is_weighed_before_any_attack_is_what_the_decision_says():
    for one in (artefact(), artefact(registered=None, problem="it fails", takes="nothing")):
        assert tuple(weighed(one)) == decide(evidence(artefact=one), None, policy()).clauses[:3]


def test_any_images_may_decide_where_the_policy_names_none():
    decision = decide(evidence(data=OTHER), None, policy(data=None))
    assert decision.passed
    assert "data" not in names(decision)


def test_an_accepted_doubt_passes_and_is_told_and_another_beside_it_fails():
    rules = policy(doubts=("zero gradients",))
    accepted = clause(decide(evidence(doubts=("zero gradients",)), None, rules), "doubts")
    assert (accepted.passed, accepted.found) == (True, "zero gradients (accepted)")
    assert accepted.asked == "none but zero gradients"
    both = decide(evidence(doubts=("zero gradients", "square beats apgd")), None, rules)
    assert both.failed == ("doubts",)
    assert clause(both, "doubts").found == "square beats apgd, zero gradients (accepted)"
    assert decide(evidence(doubts=None), None, rules).failed == ("doubts",)


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("clean accuracy", {"clean": 0.899}),
        (f"robust accuracy, {LINF}", {"robust": 0.499}),
        (f"robust accuracy, {L2}", {"l2": 0.499}),
    ],
)
def test_a_floor_fails_alone(name, shares):
    whole = {"class_floor": 0.0}
    decision = decide(evidence(**shares), None, policy(clean=whole, robust=whole))
    assert decision.failed == (name,)
    count = round(1000 * next(iter(shares.values())))
    assert f"{count / 10:.1f} % [" in clause(decision, name).found
    assert f"{count:,} of 1,000" in clause(decision, name).found


@pytest.mark.parametrize("name", FLOORS[1::2])
def test_a_class_floor_fails_alone(name):
    """Of the owls 51 % are right, of everything 87 %, which the floors of the whole allow."""
    found = evidence(clean=1, robust=1, l2=1)
    low = wrong_in(found, label=2, count=122)
    if name.startswith("clean"):
        found = replace(found, clean=low)
    else:
        threat = LINF if LINF in name else L2
        found = replace(found, robust={**found.robust, threat: low})
    rules = policy(clean={"floor": 0.85, "class_floor": 0.6}, robust={"class_floor": 0.6})
    decision = decide(found, None, rules)
    assert decision.failed == (name,)
    assert clause(decision, name).found == "worst owl: 51.2 %, 128 of 250"
    assert decide(found, None, policy(clean={"floor": 0.85, "class_floor": 0.5})).passed


def test_how_many_classes_are_below_is_told():
    low = wrong_in(evidence(), 2, 125) & wrong_in(evidence(), 0, 200)
    decision = decide(replace(evidence(), clean=low), None, policy(clean={"floor": 0.5}))
    assert decision.failed == ("clean accuracy, each class",)
    assert clause(decision, "clean accuracy, each class").found == "worst cat: 20.0 %, 50 of 250; 2 classes below"


def test_a_class_without_an_image_shows_nothing():
    found = evidence(clean=1, labels=np.arange(1000) % 3)
    decision = decide(found, None, policy(robust={"class_floor": 0.0}))
    assert decision.failed == ("clean accuracy, each class",)
    assert clause(decision, "clean accuracy, each class").found == "no image of yak"
    assert decide(found, None, policy(clean={"class_floor": 0.0}, robust={"class_floor": 0.0})).passed


def test_two_classes_of_one_name_are_both_judged():
    found = evidence(clean=1, robust=1, l2=1, classes=("crane", "dog", "owl", "crane"))
    found = replace(found, clean=wrong_in(found, label=0, count=250))
    decision = decide(found, None, policy(clean={"floor": 0.5}))
    assert decision.failed == ("clean accuracy, each class",)


@pytest.mark.parametrize(("floor", "count", "n"), [(0.07, 7, 100), (0.29, 29, 100), (0.55, 11, 20), (0.3, 300, 1000)])
def test_a_floor_met_exactly_passes_whatever_the_arithmetic_says(floor, count, n):
    """``0.07 * 100`` is above 7 by rounding."""
    same = {"floor": floor, "class_floor": floor}
    one = {"classes": ("cat",), "labels": np.zeros(n, int)}
    met = evidence(count / n, count / n, count / n, n, **one)
    assert decide(met, None, policy(clean=same, robust=same)).passed
    missed = evidence(count / n, (count - 1) / n, count / n, n, **one)
    below = (f"robust accuracy, {LINF}", f"robust accuracy, {LINF}, each class")
    assert decide(missed, None, policy(clean=same, robust=same)).failed == below


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": np.arange(1000)[::-1].copy()},
        {"ids": np.arange(1000) + 1},
        {"labels": (np.arange(1000) + 1) % 4},
        {"data": OTHER},
        {"attack": {**ATTACK, "seed": 1}},
        {"attack": {**ATTACK, "version": "plus"}},
        {"beyond": ("malt", "pgd")},
        {"robust": {LINF: evidence().robust[LINF]}},
    ],
    ids=["order", "ids", "labels", "data", "seed", "version", "beyond", "threats"],
)
def test_what_met_other_images_or_other_attacks_is_not_compared(changes):
    decision = decide(evidence(), champion(**changes), policy())
    assert decision.failed == ("same images, same attacks",)
    assert names(decision) == (*OF_IT, *FLOORS, *BESIDE[:2])


def test_fewer_images_of_the_champion_are_told():
    decision = decide(evidence(), champion(evidence(n=500)), policy())
    assert decision.failed == ("same images, same attacks",)
    assert clause(decision, BESIDE[0]).found == "1,000 of the candidate, 500 of the champion"


@pytest.mark.parametrize("changes", [{"digest": OTHER}, {"registered": None}])
def test_a_champion_that_is_not_what_was_registered_is_no_measure(changes):
    decision = decide(evidence(), champion(artefact=artefact(**changes)), policy())
    assert decision.failed == ("champion's artefact",)


def test_the_champion_is_measured_against_and_not_judged():
    """It may fall short of a policy that came after it."""
    poor = champion(evidence(clean=0.5, robust=0.1, l2=0.1), doubts=("zero gradients",), network=OTHER)
    assert decide(evidence(), poor, policy()).passed


def only(name: str, rule: str, margin: float = 0.02) -> Policy:
    """A comparison of the clean accuracy, or of the robust ones, and of nothing else."""
    bars = {"clean": {"rule": ANY}, "robust": {"rule": ANY}}
    bars["clean" if name.startswith("clean") else "robust"] = {"rule": rule, "margin": margin}
    return policy(**bars)


def changed(name: str, gained: int, lost: int) -> Evidence:
    """A candidate that differs from the champion in what ``name`` compares alone."""
    return moved(evidence(), gained, lost, *(threat for threat in (LINF, L2) if threat in name))


@pytest.mark.parametrize("name", AGAINST)
@pytest.mark.parametrize(
    ("rule", "gained", "lost", "passed"),
    [
        (BETTER, 0, 0, False),
        (BETTER, 20, 20, False),
        (BETTER, 25, 20, False),  # p 0.23
        (BETTER, 40, 15, True),
        (BETTER, 15, 40, False),
        (NOT_WORSE, 0, 0, True),
        (NOT_WORSE, 20, 20, True),
        (NOT_WORSE, 15, 30, False),  # p 0.22: a loss of 1.5 points may be one of 2
        (NOT_WORSE, 5, 45, False),
        (NOT_WORSE, 40, 15, True),
        (ANY, 0, 40, True),
    ],
)
def test_a_comparison_passes_or_fails_alone(name, rule, gained, lost, passed):
    """The other threat is 40 points better, so that it passes by any rule."""
    candidate, base = changed(name, gained, lost), champion()
    if name in AGAINST[1:]:
        other = L2 if LINF in name else LINF
        base = moved(base, 0, 400, other)
    decision = decide(candidate, base, only(name, rule))
    assert decision.failed == (() if passed else (name,))
    assert decision.passed is passed
    if rule != ANY:
        assert f"{gained:,} gained, {lost:,} lost, p " in clause(decision, name).found
        assert f"{(gained - lost) / 10:+.1f} points [" in clause(decision, name).found


def test_any_compares_nothing():
    decision = decide(evidence(), champion(), policy(clean={"rule": ANY}, robust={"rule": ANY}))
    assert names(decision) == (*OF_IT, *FLOORS, *BESIDE[:2])
    assert decision.passed


def test_equal_models_need_images_enough_to_be_not_worse():
    few = evidence(n=100)
    decision = decide(few, champion(few), policy())
    assert decision.failed == AGAINST
    assert decide(evidence(n=1000), champion(), policy()).passed


def test_better_at_one_threat_and_no_better_at_another_is_not_better():
    rules = only("robust", BETTER)
    assert decide(moved(evidence(), 60, 10, LINF, L2), champion(), rules).passed
    assert decide(moved(evidence(), 60, 10, LINF), champion(), rules).failed == (AGAINST[2],)


def test_the_level_and_the_margin_are_the_policys():
    candidate = moved(evidence(), 35, 20, LINF, L2)  # p 0.022
    rules = only("robust", BETTER)
    assert decide(candidate, champion(), rules).passed
    assert decide(candidate, champion(), replace(rules, level=0.01)).failed == AGAINST[1:]
    worse = moved(evidence(), 20, 40, LINF, L2)
    assert decide(worse, champion(), only("robust", NOT_WORSE, 0.02)).failed == AGAINST[1:]
    decision = decide(worse, champion(), only("robust", NOT_WORSE, 0.04))
    assert decision.passed
    assert clause(decision, AGAINST[1]).asked == "not 4 points worse, or more (p at most 0.05)"


def hopeless() -> Evidence:
    bad = artefact(registered=None, network=OTHER, takes="nothing", problem="it fails")
    found = evidence(0.1, 0.05, 0.05, artefact=bad, data=OTHER, beyond=(), doubts=("zero gradients",))
    return replace(found, attack={**ATTACK, "name": "PGD"})


def test_nothing_is_left_out_because_something_else_failed():
    decision = decide(hopeless(), champion(data=OTHER, beyond=(), attack=hopeless().attack), policy())
    assert names(decision) == (*OF_IT, *FLOORS, *BESIDE)
    assert decision.failed == (*OF_IT, *FLOORS, *AGAINST)


def test_a_decision_reads_and_changes_nothing():
    """The arrays of ``evidence`` cannot be written to, either."""
    given = (moved(evidence(), 30, 10, LINF), champion(), policy())
    before = pickle.dumps(given)
    assert decide(*given) == decide(*given)
    assert pickle.dumps(given) == before
    for found in given[:2]:
        assert all(array.dtype == bool for array in (found.clean, *found.robust.values()))

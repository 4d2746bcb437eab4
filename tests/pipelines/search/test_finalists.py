"""Finalists by hand: their spread, the best seed, the winner; importance, cost; and what is registered, and once."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from pipelines.search import finalists, shown
from pipelines.search.finalists import Finalist, Seed
from pipelines.search.front import Trial
from pipelines.search.space import Axis
from pipelines.search.trial import Setting
from pipelines.tracking import versions
from tests.pipelines.promotion import movers


def seed(number: int, robust: float, validation: float = 0.5, clean: float = 0.9) -> Seed:
    return Seed(number, f"run-{number}", clean, robust, validation, (), 64, steps=10.0, seconds=2.0)


def finalist(name: str, *seeds: Seed) -> Finalist:
    return Finalist(Trial(name, {"objective.weight": 1.0}, 0.9, 0.4, 3, 30.0, f"run-{name}", 5.0), seeds)


@pytest.mark.parametrize(
    ("values", "mean", "half"),
    [
        ((0.3, 0.5), 0.4, 12.71 * 0.1),
        ((0.3, 0.4, 0.5), 0.4, 4.30 * 0.1 / 3**0.5),
        ((0.4,) * 31, 0.4, 0.0),
        ((0.3, 0.5) * 20, 0.4, 2.04 * 0.1 * (40 / 39) ** 0.5 / 40**0.5),
    ],
)
def test_the_interval_is_student_s(values, mean, half):
    found = finalist("a", *(seed(i, value) for i, value in enumerate(values))).spread("robust")
    assert found == pytest.approx((mean, half))


def test_one_seed_has_no_interval_and_is_json():
    one = finalist("a", seed(1, 0.3))
    assert one.spread("robust") == (0.3, None)
    assert json.loads(json.dumps(one.plain(), allow_nan=False))["robust"] == [0.3, None]
    shown.finalists([one], one, Console())


def test_the_table_of_t_falls_towards_the_normal_one():
    assert len(finalists.T95) == 30
    assert list(finalists.T95) == sorted(finalists.T95, reverse=True)


def test_the_best_seed_is_the_best_on_validation_images_and_the_first_of_equals():
    found = finalist("a", seed(3, 0.9, 0.2), seed(2, 0.1, 0.6), seed(1, 0.2, 0.6))
    assert found.best.seed == 1


def test_the_winner_is_chosen_by_means_of_test_images():
    lucky = finalist("lucky", seed(1, 0.9), seed(2, 0.1))
    steady = finalist("steady", seed(1, 0.6, clean=0.7), seed(2, 0.6, clean=0.7))
    assert finalists.winner([lucky, steady], "robust") is steady
    assert finalists.winner([lucky, steady], "robust_with_clean_0.8") is lucky


def test_finalists_are_trained_over_seeds_that_the_search_has_not_seen(monkeypatch):
    trained = []
    monkeypatch.setattr(finalists, "_one", lambda trial, number, *_: trained.append(number) or seed(number, 0.5))
    config = {"seeds": 3, "examples": 8}
    trial = finalist("a").trial
    finalists.prove([trial], setting("seed=5"), config, Console(quiet=True), False)
    assert trained == [6, 7, 8]


def test_importance_is_the_share_of_what_moves_the_score():
    axes = [Axis("objective.weight", "log", (0.1, 10)), Axis("model.activation", "choice", ("gelu", "silu"))]
    trials = [
        Trial(f"{w}-{a}", {"objective.weight": w, "model.activation": a}, 0.5, w / 10, 3, None, "run")
        for w in (0.1, 0.3, 1.0, 3.0, 10.0)
        for a in ("gelu", "silu")
    ]
    found = shown.importance(trials, axes, {"clean_accuracy": 0.5, "robust_accuracy": 1.0})
    assert found["objective.weight"] > 0.9
    assert sum(found.values()) == pytest.approx(1)
    assert shown.importance(trials[:3], axes, {"robust_accuracy": 1.0}) == {}
    same = [replace(trial, robust=0.5) for trial in trials]
    assert shown.importance(same, axes, {"robust_accuracy": 1.0}) == {}


def test_cost_is_of_all_that_came_to_an_end_and_says_what_did_not():
    whole, early = finalist("a").trial, replace(finalist("b").trial, steps=None, seconds=None, epochs=2)
    found = shown.cost([whole, early], [finalist("a", seed(1, 0.5), seed(2, 0.5))])
    assert found == {
        "trainings": 3,
        "standard_steps": 50.0,
        "train_seconds": 9.0,
        "ended_early": 1,
        "ended_early_epochs": 2,
    }
    assert shown.cost_said(found) == (
        "50 standard steps in 9 s of 3 trainings, finalists included; 1 ended early after 2 epochs in all, not counted"
    )


def setting(*lines: str) -> Setting:
    return Setting(("recipe=digits_gradnorm", *lines), None, "runs/mine", "key", "parent", "mine", {}, 1.0)


def test_a_rerun_brings_no_version_back_and_displaces_nobody(tracking_uri, monkeypatch):
    movers.model(tracking_uri, "digits")
    won, where = finalist("a", seed(1, 0.5), seed(2, 0.5, validation=0.6)), setting(f"tracking.uri={tracking_uri}")
    trained = []

    def train(config, console, debug, within):
        trained.append((config["name"], config["seed"], config["register_as"]))
        return SimpleNamespace(version=3)

    monkeypatch.setattr(finalists, "train", train)

    def register():
        return finalists.register(won, where, "digits", "robust", Console(quiet=True), False)

    assert finalists.register(won, where, None, "robust", Console(), False) is None
    assert register().aliases == ("challenger",)
    assert trained == [("a-seed2", 2, "digits")]
    tags = versions.find(tracking_uri, "digits", 3).tags
    assert (tags["search"], tags["search.run_id"], tags["search.choose"]) == ("mine", "parent", "robust")
    assert tags["search.sample"] == "objective.weight=1.0"

    versions.point(tracking_uri, "digits", "challenger", 4)  # a person's own
    assert register().aliases == ()
    assert versions.aliases(tracking_uri, "digits")["challenger"] == 4

    versions.point(tracking_uri, "digits", "challenger", None)
    versions.tag(tracking_uri, "digits", 3, {versions.ROLLED_BACK: "it mistakes eights", "search.run_id": ""})
    assert register().aliases == ()
    assert "challenger" not in versions.aliases(tracking_uri, "digits")

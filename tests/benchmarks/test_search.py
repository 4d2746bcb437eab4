"""The benchmark of the search counts every epoch of every trial, on made-up tables whose answers are known."""

import itertools
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import search
from benchmarks.report import Rows
from benchmarks.search import Cost, Ended

EPOCHS, FIRST, FACTOR = 12, 3, 3
POINTS = [(weight, activation) for weight in (0.1, 1.0, 10.0, 100.0) for activation in ("gelu", "relu")]
SETTINGS = {
    "algorithm": "tpe",
    "trials": 16,
    "seed": 0,
    "weights": {"clean_accuracy": 0.5, "robust_accuracy": 1.0},
    "halving": {"use": True, "first": FIRST, "factor": FACTOR},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def table(robust=lambda point: 0.5):
    """Robust accuracy grows evenly up to its value."""
    return {p: [(1.0, robust(p) * (epoch + 1) / EPOCHS) for epoch in range(EPOCHS)] for p in POINTS}


def only(best):
    return lambda point: 0.9 if point == best else 0.1 + 0.01 * POINTS.index(point)


class Script:
    """A searcher that asks for these points in turn, and remembers what it was told."""

    def __init__(self, points):
        self.points, self.told, self.ended = itertools.cycle(points), [], []

    def suggest(self, trial_id):
        return dict(zip(search.KEYS, next(self.points), strict=True))

    def on_trial_result(self, trial_id, report):
        self.told.append((trial_id, report["epoch"]))

    def on_trial_complete(self, trial_id, report):
        self.ended.append((trial_id, report["epoch"]))


class Halving:
    """Ends whoever has less than 0.05 after ``FIRST`` epochs."""

    STOP = "STOP"

    def on_trial_add(self, controller, trial): ...

    def on_trial_complete(self, controller, trial, report): ...

    def on_trial_result(self, controller, trial, report):
        return self.STOP if report["epoch"] == FIRST and report["robust_accuracy"] < 0.05 else "CONTINUE"


def test_two_trials_take_turns_and_the_epochs_of_both_count():
    script = Script([POINTS[0], POINTS[3]])
    trials = list(search.replay(table(only(POINTS[3])), script, Halving(), {"robust_accuracy": 1.0}, most=3))
    assert [(trial.point, trial.epochs, trial.spent) for trial in trials] == [
        (POINTS[0], FIRST, 5),  # ended early, with 2 epochs of the other
        (POINTS[0], FIRST, 11),
        (POINTS[3], EPOCHS, 18),
    ]
    assert trials[-1].robust == pytest.approx(0.9)
    assert script.ended == [("0", FIRST), ("2", FIRST), ("1", EPOCHS)]
    assert ("0", FIRST) not in script.told  # of its stop it hears once
    assert ("1", EPOCHS) in script.told


def test_what_a_search_costs_and_when_it_is_given_up():
    full = table()
    grid = len(POINTS) * EPOCHS

    def ended(*pairs):
        return iter([Ended(POINTS[0], EPOCHS, robust, spent) for robust, spent in pairs])

    assert search.grid(full) == grid
    assert search.cost(ended((0.4, 12), (0.6, 24), (0.9, 36)), 0.6, full) == Cost(24 / grid, 2, True)
    assert search.cost(ended((0.4, 12), (0.6, grid)), 0.6, full) == Cost(1.0, 2, True)
    assert search.cost(ended((0.4, 12), (0.4, grid), (0.9, grid + 1)), 0.6, full) == Cost(1.0, 2, False)
    assert search.cost(ended((0.4, 12), (0.9, grid + 1)), 0.6, full) == Cost(1.0, 2, False)


def test_the_targets():
    full = table(only(POINTS[5]))
    full[POINTS[0]][3] = (1.0, 0.99)  # in passing: a grid would not have kept it
    assert search.best(full) == pytest.approx(0.9)
    assert search.near(full) == pytest.approx(0.9 - math.sqrt(0.9 * 0.1 / 128))


def test_the_search_that_ships_ends_trials_early_and_finds_the_best():
    full = table(only(POINTS[5]))
    trials = list(search.tuned(full, SETTINGS, most=40))
    assert trials == list(search.tuned(full, SETTINGS, most=40))
    assert trials != list(search.tuned(full, {**SETTINGS, "seed": 1}, most=40))
    assert {trial.epochs for trial in trials} == {FIRST, FIRST * FACTOR, EPOCHS}
    assert sum(trial.epochs for trial in trials) == trials[-1].spent
    assert all(trial.robust == full[trial.point][trial.epochs - 1][1] for trial in trials)
    assert max(trials, key=lambda trial: trial.robust).point == POINTS[5]
    whole = list(search.tuned(full, {**SETTINGS, "halving": {**SETTINGS["halving"], "use": False}}, most=7))
    assert [trial.epochs for trial in whole] == [EPOCHS] * 7
    assert whole[-1].spent == 7 * EPOCHS


def test_uniform_draws_cost_what_theory_says():
    """The best of 8 points is drawn after 8 draws in the mean, less those that a full grid's budget cuts off."""
    full = table(only(POINTS[5]))
    costs = [search.cost(search.drawn(full, seed), 0.9, full) for seed in range(400)]
    expected = sum((7 / 8) ** draws for draws in range(8)) / 8
    assert sum(cost.share for cost in costs) / 400 == pytest.approx(expected, abs=0.06)
    assert sum(not cost.reached for cost in costs) / 400 == pytest.approx((7 / 8) ** 8, abs=0.08)


def test_rows_of_a_table_where_all_are_as_good():
    rows = Rows("")
    search.add_compute(rows, [table(), table()], searches=3)
    found = {row["what"]: row for row in rows.rows}
    first = (2 * EPOCHS - 1) / (EPOCHS * len(POINTS))  # the first trial ends, the second has one epoch to go
    for what in ("compute_over_full_grid", "random_compute_over_full_grid_exact"):
        assert found[what]["value"] == pytest.approx(first)
        assert found[what]["n"] == 6
        assert found[what]["note"].endswith("0 given up")
    assert found["reached_in_16_trials_exact"]["value"] == 1
    assert [row["what"] for row in rows.rows if row["goal"]] == ["compute_over_full_grid"]


def test_rows_of_a_table_that_hides_its_best():
    """It is the worst until its last epoch: halving ends it each time, but for a search's first trials."""
    hidden = table(only(POINTS[5]))
    hidden[POINTS[5]] = [(0.0, 0.0)] * (EPOCHS - 1) + [(1.0, 0.9)]
    rows = Rows("")
    search.add_compute(rows, [hidden], searches=5)
    found = {row["what"]: row for row in rows.rows}
    assert found["compute_over_full_grid"]["value"] > 0.5
    assert not found["compute_over_full_grid"]["note"].endswith(" 0 given up")
    assert found["reached_in_16_trials"]["value"] < 1


def test_a_point_is_trained_and_judged_as_its_recipe():
    compose, parts = (pytest.importorskip(f"pipelines.{name}") for name in ("compose", "parts"))
    config = compose.compose("train", ["recipe=digits_gradnorm", "objective.weight=3.0"])
    assert parts.objective(config) == search.arms.gradnorm(search.EPS, weight=3.0)
    assert parts.attack(config, "alarm") == search.JUDGE
    assert parts.data(config).size("validation") == search.arms.VALIDATION
    assert config["model"]["arguments"]["blocks"] == search.BLOCKS
    ((clean, robust),) = search.curve(3.0, "silu", 0, epochs=1)
    assert 0 <= robust <= clean <= 1


def test_overhead_is_the_difference_of_a_trial(monkeypatch):
    from pipelines import cluster
    from pipelines.tracking import runs

    clock, order = [0.0], []

    def taking(seconds):
        def arm(setting, weights):
            order.append(setting.search)
            clock[0] += seconds + len(weights)

        return arm

    monkeypatch.setattr(cluster, "connect", lambda **_: None)
    monkeypatch.setattr(runs, "check", lambda uri: None)
    monkeypatch.setattr(runs, "open_run", lambda *_, **__: "run")
    monkeypatch.setattr(search, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(search, "ARMS", {"halved": taking(30.0), "plain": taking(15.0), "trainings": taking(9.0)})
    found = search.taken(2, trials=3)
    assert order == ["first", "halved-0", "plain-0", "trainings-0", "plain-1", "trainings-1", "halved-1"]
    rows = Rows("")
    search.add_overhead(rows, found, trials=3)
    assert [(row["what"], row["value"], row["n"]) for row in rows.rows] == [
        ("trial_overhead_seconds", 7.0, 2),
        ("trial_overhead_seconds_no_halving", 2.0, 2),
        ("training_seconds", 4.0, 2),
    ]

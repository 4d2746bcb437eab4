"""The benchmark of the papers: its arms are the recipes', its rows say what they hold, and a job of it runs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import papers
from benchmarks.report import Rows

GOALS = {
    "edge_correlation_gain",
    "clean_drop_lowest_bound",
    "alignment_gain_lowest_bound",
    "zero_shot_unseen_over_chance",
}
MEASURES = (
    "clean_accuracy",
    "robust_accuracy",
    "edge_correlation",
    "zero_shot_t1",
    "zero_shot_unseen",
    "zero_shot_seen",
    "zero_shot_harmonic",
    "zero_shot_chance",
    "gt_known_localisation",
    "top1_localisation",
    "top1_accuracy",
)


def measured() -> papers.Found:
    return {(job, seed): dict.fromkeys(MEASURES, 0.5) for job in papers.JOBS for seed in range(3)}


def claims(**values: float) -> dict[str, dict]:
    """Rows of three seeds, in which every job measured 0.5 of everything, but ``values``: the job and its measure."""
    found = measured()
    for name, value in values.items():
        job, _, what = name.partition("__")
        for seed in range(3):
            found[job, seed][what] = value + seed / 100
    rows = Rows("")
    papers.add_claims(rows, found)
    return {row["what"]: row for row in rows.rows}


def test_the_arm_of_edges_is_its_recipe():
    compose, parts = (pytest.importorskip(f"pipelines.{name}") for name in ("compose", "parts"))
    assert parts.objective(compose.compose("train", ["recipe=digits_edges"])) == papers.EDGES


def test_the_rows_with_goals_are_there():
    assert {what for what, row in claims().items() if row["goal"]} == GOALS


@pytest.mark.parametrize(
    ("values", "what", "value"),
    [
        ({"edges__edge_correlation": 0.7}, "edge_correlation_gain", 0.21),
        ({"standard__clean_accuracy": 0.6}, "clean_drop_lowest_bound", 0.11),
        ({"bound_0.25__edge_correlation": 0.6}, "alignment_gain_lowest_bound", 0.11),
        ({"bound_8__edge_correlation": 0.6}, "alignment_gain_bound_8", 0.11),
        ({"surrogate_outer__robust_accuracy": 0.6}, "surrogate_outer_gain", 0.11),
        ({"surrogate_neither__robust_accuracy": 0.4}, "surrogate_inner_gain", 0.09),
        ({"zero_shot__zero_shot_t1": 0.99}, "zero_shot_unseen_over_chance", 2.0),
        ({"localised_low_bound__gt_known_localisation": 0.6}, "localisation_gain_low_bound", 0.11),
        ({"localised_standard__top1_accuracy": 0.6}, "top1_accuracy_gain_low_bound", -0.11),
    ],
)
def test_a_gain_is_the_mean_difference_of_its_arms(values, what, value):
    row = claims(**values)[what]
    assert (row["value"], row["n"]) == (pytest.approx(value), 3)


def test_every_job_has_rows_of_its_own_measures_and_no_row_is_there_twice():
    rows = Rows("")
    papers.add_measures(rows, measured())
    names = [row["what"] for row in rows.rows]
    assert len(names) == len(set(names)) > len(papers.JOBS)
    assert {"edge_correlation_bound_8", "zero_shot_t1", "zero_shot_t1_zero_shot_untrained"} <= set(names)
    assert {"robust_accuracy_surrogate_both", "gt_known_localisation_localised_low_bound"} <= set(names)


def test_a_job_runs_and_gives_what_its_rows_need():
    name, seed, found, _ = papers.run("zero_shot_untrained", 0)
    assert (name, seed) == ("zero_shot_untrained", 0)
    assert found["zero_shot_chance"] == 1 / 16
    assert 0 <= found["zero_shot_t1"] <= 1


def test_a_word_that_names_no_job_is_answered_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        papers.main(["--only", "zero_shto"])
    assert "zero_shot_untrained" in capsys.readouterr().err

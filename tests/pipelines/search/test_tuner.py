"""Ray Tune as a search sets it up, and what the process of a trial is given."""

import pytest
from ray.tune.search import BasicVariantGenerator

from pipelines import cluster, compose
from pipelines.search import tuner


def made(concurrent, *lines):
    return tuner.config(compose.compose("tune", lines)["search"], epochs=9, concurrent=concurrent)


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_no_more_trials_at_once_than_asked_for_of_a_list(algorithm):
    """Ray Tune ignores ``max_concurrent_trials`` for these, and a generator of its own counts."""
    found = made(2, "search=digits_pgd", f"search.algorithm={algorithm}", "search.trials=4")
    assert isinstance(found.search_alg, BasicVariantGenerator)
    assert (found.search_alg.max_concurrent, found.max_concurrent_trials) == (2, None)


def test_nor_of_one_that_learns():
    assert made(2, "search=digits_gradnorm").max_concurrent_trials == 2


def test_a_trial_is_given_what_a_ray_of_this_machine_is_spared(monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.7")
    monkeypatch.delenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", raising=False)
    assert cluster.local() == {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.7"}

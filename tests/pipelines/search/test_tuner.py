"""Ray Tune as a search sets it up, and what the process of a trial is given."""

import json
import pickle

import pytest
from ray.tune.search import BasicVariantGenerator

from pipelines import cluster, compose
from pipelines.errors import Failure
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


STATE = {
    "experiment_state-2026-01-01.json": b"broken, and not the newest",
    "experiment_state-2026-01-02.json": json.dumps({"trial_data": [["{}", "{}"]], "runner_data": {}}).encode(),
    "search_gen_state-2026-01-02.json": pickle.dumps({}),
    "searcher-state-2026-01-02.pkl": pickle.dumps({}),
    "tuner.pkl": pickle.dumps({"name": "tune"}),
}


def put(folder, state):
    folder.mkdir()
    for name, content in state.items():
        (folder / name).write_bytes(content)
    return str(folder)


def test_a_search_is_gone_on_with_where_trials_were_left(tmp_path):
    assert tuner.left(put(tmp_path / "whole", STATE))
    assert not tuner.left(put(tmp_path / "begun", {"tuner.pkl": STATE["tuner.pkl"]}))
    assert not tuner.left(str(tmp_path / "nothing"))


@pytest.mark.parametrize("name", [name for name in STATE if "01-01" not in name])
@pytest.mark.parametrize("size", [0, -1])
def test_a_state_that_ray_could_not_read_is_a_failure_and_no_new_search(name, size, tmp_path):
    place = put(tmp_path / "tune", {**STATE, name: STATE[name][:size]})
    with pytest.raises(Failure) as error:
        tuner.left(place)
    assert f"{place}/{name} cannot be read" in str(error.value)
    assert f"remove {place}, and the same command begins the search anew" in str(error.value)


def test_a_state_without_its_tuner_is_one_too(tmp_path):
    place = put(tmp_path / "tune", {name: content for name, content in STATE.items() if name != "tuner.pkl"})
    with pytest.raises(Failure, match=r"tuner\.pkl cannot be read"):
        tuner.left(place)


@pytest.mark.parametrize(
    "state", [{}, {"trial_data": [["{", "{}"]], "runner_data": {}}, {"trial_data": [["{}", "{}"]]}]
)
def test_nor_could_it_go_on_from_one_without_trials(state, tmp_path):
    with pytest.raises(Failure):
        tuner.left(put(tmp_path / "tune", {**STATE, "experiment_state-2026-01-03.json": json.dumps(state).encode()}))

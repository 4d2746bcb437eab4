"""`holdfast tune` as a person meets it: real Ray Tune, real trials, killed and taken up again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pipelines import tune
from pipelines.cli import MISUSE, main
from pipelines.errors import Failure, Stopped
from pipelines.search.space import Axis
from pipelines.tracking import versions
from tests.pipelines.runs import SHORT

ROOT = Path(__file__).parents[2]
SMALL = (
    *(line for line in SHORT if not line.startswith("epochs")),
    "recipe=digits_gradnorm",
    "epochs=3",
    "evaluation.examples=16",
    "finalists=1",
    "seeds=2",
    "examples=4",
)
GRID = (
    "search=digits_pgd",
    "search.space.model.activation.grid=[silu]",
    "search.space.objective.threat.eps.grid=[0.05,0.1]",
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def places(folder: Path, uri: str) -> list[str]:
    return [f"tracking.uri={uri}", f"storage={folder / 'runs'}", f"--json={folder / 'search.json'}"]


def children(uri: str, parent: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("holdfast").experiment_id
    return list(client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'"))


@pytest.mark.timeout(600)
def test_a_search_that_is_killed_goes_on_where_it_was_and_its_winner_is_the_challenger(tmp_path, tracking_uri):
    from mlflow import MlflowClient

    command = [sys.executable, "-m", "pipelines.cli", "tune", *SMALL, *GRID, "name=mine", "concurrent=1"]
    command += [*places(tmp_path, tracking_uri), "register_as=digits"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "runs" / "mine" / "trials").glob("*/checkpoint_manager_snapshot.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = [sys.executable, "-m", "pipelines.cli", "tune", "resume=mine", f"storage={tmp_path / 'runs'}"]
    again.append(f"--json={tmp_path / 'search.json'}")
    said = subprocess.run(again, cwd=tmp_path, env=environment, check=True, timeout=500, stdout=subprocess.PIPE).stdout
    found = json.loads((tmp_path / "search.json").read_text())
    assert {trial["sample"]["objective.threat.eps"] for trial in found["trials"]} == {0.05, 0.1}
    assert all(trial["epochs"] == 3 for trial in found["trials"])
    assert found["front"]
    assert len(found["finalists"][0]["seeds"]) == 2
    assert b"finalists over 2 seeds" in said
    client = MlflowClient(tracking_uri)
    run = client.get_run(found["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["search/trials"] == 2
    runs = children(tracking_uri, found["run_id"])
    assert len(runs) == 4  # two trials, and two seeds that the search had not seen
    assert {child.info.status for child in runs} == {"FINISHED"}
    version = versions.find(tracking_uri, "digits", found["version"])
    assert version.aliases == ("challenger",)
    assert version.tags["search.run_id"] == found["run_id"]
    artifacts = client.list_artifacts(found["run_id"], "search")
    assert {Path(each.path).name for each in artifacts} == {"front.png", "search.md", "search.json"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ("search.space.objective.wieght.log=[1,2]",),
            "search.space.objective.wieght: objective.wieght: unknown setting; nearest: weight",
        ),
        (("search.algorithm=best",), "search.algorithm=best is unknown"),
        (("search.trials=0",), "search.trials=0 must be at least 1"),
        (("search.weights.speed=1",), "search.weights.speed: nobody reports that"),
        (("search.algorithm=nsga2",), "search.halving.use=true compares one score"),
        (("choose=best",), "choose=best is unknown"),
        (("seeds=0",), "seeds=0 must be at least 1"),
        (("alarm.policy=off",), "alarm.policy=off: a search compares what the alarm measures"),
        (("resume=mine", "epochs=3"), "resume=mine goes on with the search as it was begun: leave"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(lines, message, tmp_path, tracking_uri, capsys):
    base = () if lines[0].startswith("resume") else ("recipe=digits_gradnorm", f"tracking.uri={tracking_uri}")
    assert main(["tune", *base, *lines]) == MISUSE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_trial_that_failed_is_told_of_and_not_ranked(capsys):
    told = {"clean_accuracy": 0.9, "robust_accuracy": 0.5, "epoch": 3, "steps": 10.0, "seconds": 1.0}
    axes = (Axis("objective.weight", "log", (0.1, 10)),)

    def result(name, error=None):
        metrics = {**told, "trial_id": name, "run_id": f"run-{name}"}
        return SimpleNamespace(metrics=metrics, config={"objective.weight": 1.23456}, error=error)

    search, broken = SimpleNamespace(axes=axes, name="mine", uri=""), result("b", ValueError("no memory"))
    (trial,) = tune._trials(search, [result("a"), broken], Console())
    assert (trial.name, trial.sample, trial.seconds) == ("a", {"objective.weight": 1.235}, 1.0)
    assert "trial objective.weight=1.235 failed: no memory" in capsys.readouterr().out
    with pytest.raises(Failure, match=r"first said: trial objective\.weight=1\.235 failed"):
        tune._trials(search, [broken], Console())


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("mine"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (Stopped("mine"), "KILLED")]
)
def test_the_error_that_ended_a_search_is_told_whatever_the_server_says(error, status, monkeypatch):
    closed = []

    def close(uri, run_id, status, within):
        closed.append(status)
        raise Failure("the server is away")

    def fit(*_):
        raise error

    search = SimpleNamespace(
        name="mine", trials=1, folder="", notes=(), axes=(), uri="", config={"search": {}}, base={"epochs": 1}
    )
    search.base["checkpoint"] = {"failures": 0}
    monkeypatch.setattr(tune, "asked", lambda *_: search)
    monkeypatch.setattr(tune, "_begin", lambda *_: (SimpleNamespace(parent="run"), 1))
    monkeypatch.setattr(tune.tuner, "fit", fit)
    monkeypatch.setattr(tune.runs, "close_run", close)
    with pytest.raises(type(error)) as raised:
        tune.tune([], Console(quiet=True), None, None)
    assert raised.value is error
    assert closed == [status]

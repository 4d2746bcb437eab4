"""`holdfast retrain` as cron meets it: two at once, killed, failing at each step; the circle is in test_circle.py."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import FAILURE, OK, main
from pipelines.errors import Failure
from pipelines.retraining import fallen, steps
from pipelines.tracking import audit, lease, versions
from tests.pipelines.runs import SHORT
from trainers.evaluation import doubts

ROOT = Path(__file__).parents[2]
LENIENT = """
evaluation: [data=digits, threats.Linf=0.3, examples=3]
clean: {rule: any}
robust: {rule: any}
doubts: [%s]
"""


@pytest.fixture
def lines(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A retraining of the digits that any network passes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy").mkdir()
    names = ", ".join(f'"{check}"' for check in doubts.CHECKS)
    (tmp_path / "policy" / "lenient.yaml").write_text(LENIENT % names)
    ours = [*SHORT, "recipe=digits_pgd", "evaluation.examples=16", "alarm.examples=16", "register_as=digits"]
    places = [f"tracking.uri={tracking_uri}", f"storage={tmp_path / 'runs'}", f"--json={tmp_path / 'out.json'}"]
    return ["retrain", *ours, *places, "policy=lenient", f"--recipes={tmp_path}"]


def outcome(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out.json").read_text())


def once(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Lets a step end by an error when it has done its work; whenever it is called adds to the list."""
    calls: list[int] = []
    step: Callable[..., Any] = getattr(steps, name)

    def fails(*args: Any) -> Any:
        found = step(*args)
        calls.append(1)
        if len(calls) == 1:
            raise Failure(f"{name} could not be written down")
        return found

    monkeypatch.setattr(steps, name, fails)
    return calls


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_cluster")
def test_two_at_once_killed_and_failing_at_each_step_do_the_work_once(
    lines, tmp_path, tracking_uri, monkeypatch, capsys
):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}
    command = [sys.executable, "-m", "pipelines.cli", *lines]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "runs").glob("digits_pgd-*/checkpoint_manager_snapshot.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert main(lines) == OK
    assert "is at it since" in capsys.readouterr().out
    assert outcome(tmp_path)["outcome"] == "elsewhere"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    trained, judged, reported = (once(monkeypatch, name) for name in ("_train", "_gate", "_report"))
    for step in ("_train", "_gate", "_report"):
        assert main(lines) == FAILURE
        assert step in capsys.readouterr().err
        assert outcome(tmp_path)["outcome"] == "failed"
    assert main(lines) == OK
    assert "going on with record" in capsys.readouterr().out
    assert (len(trained), len(judged), len(reported)) == (4, 3, 2)

    found = outcome(tmp_path)
    assert (found["outcome"], found["version"], found["before"]) == ("promoted", 1, None)
    (version,) = versions.listed(tracking_uri, "digits")
    assert version.aliases == ("champion",)
    states = [record.state for record in audit.records(tracking_uri, "digits", lease.RETRAININGS)]
    assert states == [lease.DEAD, lease.LEFT, lease.FAILED, lease.FAILED, lease.FAILED, lease.DONE]
    assert [record.state for record in audit.records(tracking_uri, "digits")] == [audit.DONE]
    _one_run_of_each_kind(tracking_uri, found["run_id"])
    _fresh_images_are_asked_about_once(lines, tmp_path, monkeypatch)


def _one_run_of_each_kind(uri: str, parent: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    every = client.search_runs([client.get_experiment_by_name("holdfast").experiment_id])
    assert {run.info.status for run in every} == {"FINISHED"}
    (child,) = [run for run in every if run.info.run_id != parent]
    assert child.data.tags["mlflow.parentRunId"] == parent
    names = {each.path for each in client.list_artifacts(parent, "retraining")}
    assert names == {"retraining/manifest.json", "retraining/retraining.json"}


def _fresh_images_are_asked_about_once(lines: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion is right on fewer of the fresh images: it is, until the retraining that follows is of another."""
    shares = {0: 97, 1: 60}
    asked = []

    def evaluated(config: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        fresh = config["seed"]
        asked.append(config["model"]["source"])
        robust = {"right": shares[fresh] - 20, "n": 100}
        threat = {"norm": "Linf", "eps": 0.3, "robust": robust, "beyond": None}
        return {"clean": {"right": shares[fresh], "n": 100}, "threats": [threat]}

    monkeypatch.setattr(fallen, "evaluate", evaluated)
    monkeypatch.setattr(steps, "carry_out", lambda *_: None)
    again = [*lines, "when.fresh=[seed=1]"]
    assert main([*again, "when.fallen=0.4"]) == OK
    assert outcome(folder)["outcome"] == "nothing"
    assert asked == ["models:/digits/1"] * 2
    seen: list[Any] = []
    monkeypatch.setattr(steps, "carry_out", lambda job, looked, *_: seen.extend(looked.reasons))
    assert main(again) == OK
    assert [reason.kind for reason in seen] == ["fallen", "fallen"]
    assert "clean accuracy fell from 0.970 of 100 to 0.600 of 100 fresh images" in seen[0].said
    assert main(again) == OK
    assert len(asked) == 4  # the answer is kept with the champion

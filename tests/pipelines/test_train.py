"""`holdfast train` on a real local Ray and a real MLflow database."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipelines.cli import FAILURE, OK, STOPPED, main

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow makes its default database in the working folder."""
    monkeypatch.chdir(tmp_path)


SHORT = ("epochs=2", "model.arguments.blocks=1", "model.arguments.width=8", "evaluation.attack.steps=5")


def train(folder: Path, uri: str, *overrides: str, code: int = OK) -> dict:
    """The outcome of a short run."""
    folder.mkdir(exist_ok=True)
    out = folder / "outcome.json"
    arguments = ["train", *SHORT, f"tracking.uri={uri}", f"storage={folder / 'runs'}", f"--json={out}", *overrides]
    assert main(arguments) == code
    return json.loads(out.read_text()) if out.exists() else {}


def weights(folder: Path, outcome: dict) -> dict[str, torch.Tensor]:
    (last,) = sorted((folder / "runs" / outcome["run_name"]).glob("checkpoint_*/model/weights.safetensors"))[-1:]
    return load_file(last)


def metric_steps(uri: str, run_id: str, name: str) -> list[int]:
    from mlflow import MlflowClient

    return [m.step for m in MlflowClient(uri).get_metric_history(run_id, name)]


def test_one_config_gives_one_registered_model_that_loads_with_pickle_forbidden(tmp_path, tracking_uri, monkeypatch):
    outcome = train(tmp_path, tracking_uri, "recipe=digits_gradnorm", "register_as=digits", "report.steps=5")
    assert outcome["version"] == 1
    assert 0 <= outcome["metrics"]["robust_accuracy"] <= outcome["metrics"]["clean_accuracy"] <= 1
    assert outcome["metrics"]["test_examples"] == 540
    assert outcome["cost"]["standard_steps_a_step"] == pytest.approx(2, abs=0.2)

    import mlflow
    from mlflow import MlflowClient

    run = MlflowClient(tracking_uri).get_run(outcome["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["objective.weight"] == "1.2"
    assert run.data.metrics["clean_accuracy"] == pytest.approx(outcome["metrics"]["clean_accuracy"])
    assert run.inputs.dataset_inputs[0].dataset.name == "digits"
    steps = metric_steps(tracking_uri, outcome["run_id"], "loss")
    assert steps == sorted(set(steps))

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(tracking_uri)
    exported = mlflow.pytorch.load_model("models:/digits/1")
    from pipelines.tracking import registry

    ordinary = registry.load("models:/digits/1", tracking_uri)
    x = torch.rand(3, 1, 8, 8, requires_grad=True)
    torch.testing.assert_close(exported(x), ordinary(x), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(exported(x).sum(), x)
    assert gradient.abs().sum() > 0
    assert ordinary.train().eval() is ordinary


def test_the_same_command_again_finds_its_run_and_registers_nothing_twice(tmp_path, tracking_uri):
    first = train(tmp_path, tracking_uri, "recipe=digits_standard", "register_as=again")
    second = train(tmp_path, tracking_uri, "recipe=digits_standard", "register_as=again")
    assert second["run_id"] == first["run_id"]
    assert second["version"] == first["version"] == 1
    assert second["metrics"] == first["metrics"]


def test_a_worker_killed_in_mid_epoch_leaves_the_same_weights_in_the_same_run(tmp_path, tracking_uri):
    settings = ("recipe=digits_pgd", "workers=2", "epochs=6", "report.steps=3")
    whole = train(tmp_path / "whole", tracking_uri, *settings, "tracking.experiment=whole")

    killed: list[int] = []
    storage = tmp_path / "cut" / "runs" / whole["run_name"]
    killer = threading.Thread(target=_kill_a_worker, args=(storage, killed), daemon=True)
    killer.start()
    cut = train(tmp_path / "cut", tracking_uri, *settings, "tracking.experiment=cut")
    killer.join(timeout=5)

    assert killed, "no worker was killed: the run was over too soon"
    assert cut["run_name"] == whole["run_name"]
    expected, found = weights(tmp_path / "whole", whole), weights(tmp_path / "cut", cut)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert metric_steps(tracking_uri, cut["run_id"], "loss") == metric_steps(tracking_uri, whole["run_id"], "loss")


def _kill_a_worker(storage: Path, killed: list[int]) -> None:
    """SIGKILL to one Ray Train worker of ours, once a checkpoint is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list(storage.glob("checkpoint_*")):
            for process in psutil.Process().children(recursive=True):
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.02)


def test_divergence_is_a_failure_that_names_the_remedy_and_is_not_retried(tmp_path, tracking_uri, capsys):
    train(tmp_path, tracking_uri, "recipe=digits_standard", "optimizer.lr=1e30", "clip_norm=null", code=FAILURE)
    message = capsys.readouterr().err
    assert "diverged" in message
    assert "Traceback" not in message


def test_more_workers_than_the_cluster_can_hold_are_refused(tmp_path, tracking_uri, capsys):
    train(tmp_path, tracking_uri, "recipe=digits_standard", "workers=32", code=2)
    assert "workers=32 is more than this cluster can ever hold" in capsys.readouterr().err


def test_a_checkpoint_of_another_config_is_refused(tmp_path, tracking_uri, capsys):
    train(tmp_path, tracking_uri, "recipe=digits_standard", "name=mine")
    train(
        tmp_path, tracking_uri, "recipe=digits_standard", "name=mine", "seed=1", "tracking.experiment=b", code=FAILURE
    )
    assert "another config" in capsys.readouterr().err


def test_on_a_running_cluster_a_stopped_run_ends_with_5_and_continues_where_it_was(tmp_path, tracking_uri):
    import ray
    from mlflow import MlflowClient

    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "pipelines.cli", "train", *SHORT, "recipe=digits_pgd", "epochs=40"]
    command += [f"tracking.uri={tracking_uri}", f"storage={tmp_path / 'runs'}"]

    def start() -> subprocess.Popen[str]:
        out = subprocess.PIPE
        return subprocess.Popen(command, env=environment, cwd=tmp_path, text=True, stdout=out, stderr=subprocess.STDOUT)

    process = start()
    assert process.stdout is not None
    said = next(line for line in process.stdout if "/40  loss" in line or "holdfast:" in line)
    assert "/40  loss" in said
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == STOPPED, rest
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("holdfast").experiment_id])
    assert run.info.status == "KILLED"

    rest, _ = start().communicate(timeout=240)
    assert "continuing from step" in rest
    assert "finished 40 epochs" in rest
    assert client.get_run(run.info.run_id).info.status == "FINISHED"

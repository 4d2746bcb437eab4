"""A training whose processes are killed or stopped: one run, the same weights."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from pipelines.cli import STOPPED
from pipelines.costs import bill
from pipelines.costs.account import FAILED, STOP, Held
from pipelines.tracking import spent
from pipelines.tracking.holding import FINISHED
from pipelines.tracking.holding import STOPPED as STOPPED_BY_HAND
from tests.pipelines.runs import SHORT, metric_steps, train, weights

FEW = ("evaluation.examples=64", "alarm.examples=64")
"""A killed run's are as many as a whole one's, and how many is not what is tested."""

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow makes its default database in the working folder."""
    monkeypatch.chdir(tmp_path)


def test_a_worker_killed_in_mid_epoch_leaves_the_same_weights_in_the_same_run(tmp_path, tracking_uri):
    settings = ("recipe=digits_pgd", "workers=2", "epochs=3", "report.steps=3", "checkpoint.minutes=0", *FEW)
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
    (held,), (undisturbed,) = (_held(tracking_uri, run["run_id"]) for run in (cut, whole))
    assert undisturbed.wasted == {}
    assert list(held.wasted) == [FAILED]
    assert 0 < held.wasted[FAILED] < held.seconds
    assert (held.start.workers, held.start.how) == (2, FINISHED)


def _held(uri: str, run_id: str) -> list[Held]:
    """What its starts held, from the tags and metrics that they left themselves."""
    run = spent.by_id(uri, run_id)
    assert run is not None
    return [item.held for item in bill.items(uri, run, None)]


def _kill_a_worker(storage: Path, killed: list[int]) -> None:
    """SIGKILL to one Ray Train worker of ours, once a checkpoint is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list(storage.glob("checkpoint_*")):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it has gone since
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
                        return
        time.sleep(0.02)


def _wait_for_a_checkpoint(storage: Path) -> None:
    """An epoch's line comes before its checkpoint, which is there once Ray has written it down."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for snapshot in storage.glob("*/checkpoint_manager_snapshot.json"):
            if '"checkpoint_dir_name":' in snapshot.read_text():
                return
        time.sleep(0.05)
    pytest.fail("no checkpoint was written")


@pytest.mark.timeout(600)
def test_on_a_running_cluster_a_stopped_run_ends_with_5_and_continues_where_it_was(tmp_path, tracking_uri):
    import ray
    from mlflow import MlflowClient

    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "pipelines.cli", "train", *SHORT, *FEW, "recipe=digits_pgd", "epochs=16"]
    command += [f"tracking.uri={tracking_uri}", f"storage={tmp_path / 'runs'}"]

    def start() -> subprocess.Popen[str]:
        out = subprocess.PIPE
        return subprocess.Popen(command, env=environment, cwd=tmp_path, text=True, stdout=out, stderr=subprocess.STDOUT)

    process = start()
    try:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "/16  loss" in line or "holdfast:" in line)
        assert "/16  loss" in said
        _wait_for_a_checkpoint(tmp_path / "runs")
        process.terminate()
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == STOPPED, rest
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("holdfast").experiment_id])
    assert run.info.status == "KILLED"

    process = start()
    try:
        rest, _ = process.communicate(timeout=330)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the second command has not ended: {process.communicate()[0]}")
    assert "continuing from step" in rest
    assert "finished 16 epochs" in rest
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    first, second = _held(tracking_uri, run.info.run_id)
    assert (first.start.how, second.start.how) == (STOPPED_BY_HAND, FINISHED)
    assert (first.wasted, list(second.wasted)) == ({}, [STOP])
    assert 0 < second.wasted[STOP] < second.seconds

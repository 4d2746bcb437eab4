"""One `holdfast train` on a real tracking server that stops answering in mid-run, with a password in its address."""

import contextlib
import io
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cli import OK, main

SECRET = "hunter2-swordfish"
EPOCHS = 6


class Outage(threading.Thread):
    """Stops the server when the run has a checkpoint, until the run has made two others without it."""

    def __init__(self, server: Any, storage: Path) -> None:
        super().__init__(daemon=True)
        self.server, self.storage = server, storage
        self.trained_through = False

    def run(self) -> None:
        if not self._until(lambda: bool(self._checkpoints()), 200):
            return
        before = self._checkpoints()
        self.server.signal(signal.SIGSTOP)
        try:
            time.sleep(1)
            self.trained_through = self._until(lambda: len(self._checkpoints() - before) >= 2, 60)
        finally:
            self.server.signal(signal.SIGCONT)

    def _checkpoints(self) -> set[str]:
        return {path.name for path in self.storage.glob("*/checkpoint_*")}

    def _until(self, true: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if true():
                return True
            time.sleep(0.05)
        return False


@pytest.fixture(scope="module")
def recovered(ray_cluster: None, mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("recovery")
    out = folder / "outcome.json"
    arguments = ["recipe=digits_pgd", f"epochs={EPOCHS}", "model.arguments.blocks=1", "model.arguments.width=8"]
    arguments += [
        "evaluation.attack.steps=2",
        "evaluation.examples=100",
        "alarm.policy=off",
        "report.steps=4",
        "report.each_step=true",
    ]
    arguments += [f"tracking.uri=http://user:{SECRET}@127.0.0.1:{mlflow_server.port}", "tracking.experiment=recovery"]
    arguments += [f"storage={folder / 'runs'}", "register_as=recovered", "name=recovered", f"--json={out}"]
    outage, printed = Outage(mlflow_server, folder / "runs"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outage.start()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = main(["train", *arguments])
        outage.join(timeout=70)
    assert code == OK, printed.getvalue()
    return SimpleNamespace(outage=outage, printed=printed.getvalue(), out=out, folder=folder, server=mlflow_server)


def test_a_server_stopped_in_mid_run_gets_every_value_of_every_step_once(recovered):
    from mlflow import MlflowClient

    assert recovered.outage.trained_through, "the run was over before the outage, or waited for the server"
    outcome = json.loads(recovered.out.read_text())
    steps = round(outcome["cost"]["standard_steps"] / outcome["cost"]["standard_steps_a_step"])
    assert steps % EPOCHS == 0
    client = MlflowClient(recovered.server.uri)
    run = client.get_run(outcome["run_id"])
    assert run.info.status == "FINISHED"
    history = [m.step for m in client.get_metric_history(outcome["run_id"], "loss")]
    assert sorted(history) == list(range(1, steps + 1))
    names = set(run.data.metrics) - set(outcome["metrics"])
    assert {"images_per_second", "epoch"} < names
    for name in names:
        found = [m.step for m in client.get_metric_history(outcome["run_id"], name)]
        assert len(found) == len(set(found)), name
    assert {n: run.data.metrics[n] for n in outcome["metrics"]} == pytest.approx(outcome["metrics"])


def test_a_password_in_the_address_is_nowhere(recovered):
    """Not with the server (params, tags, description, versions, artifacts), not in the outcome, storage or output."""
    assert "recovered: run" in recovered.printed
    assert "http://***@127.0.0.1" in recovered.printed
    assert SECRET not in recovered.printed
    assert json.loads(recovered.out.read_text())["tracking_uri"].startswith("http://***@")
    files = [path for place in (recovered.folder, recovered.server.folder) for path in place.rglob("*")]
    assert {"outcome.json", "mlflow.db", "state.safetensors", "MLmodel"} <= {path.name for path in files}
    assert [path for path in files if path.is_file() and SECRET.encode() in path.read_bytes()] == []

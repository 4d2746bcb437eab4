"""What the platform costs: Ray and MLflow around an epoch, before the first step, and at every logged step.

``epoch_ray_mlflow_over_bare``: wall time of an epoch of ``holdfast train`` after the first, from the end of the one
before, whose checkpoint it thus includes (Ray Train worker, every step's five metrics to MLflow on SQLite), over the
same epoch of the bare loop in one process.
``seconds_to_first_step``: from the start of the command to the first step's metrics, tracking database there; beside
it, ``ray_train_seconds_to_first_report``: from the start of a program that does nothing but ``ray.init`` and a
``TorchTrainer`` of one worker, which reports at once.
``milliseconds_per_logged_step``: see ``tracking_overhead.py``.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import tracking_overhead
from benchmarks.report import Rows, parser

SLOW = [
    "recipe=digits_gradnorm",
    "batch_size=8",
    "report.steps=10",
    "report.each_step=true",
    "alarm.policy=off",
    "evaluation.examples=8",
    "evaluation.attack.steps=1",
]
# An epoch of 30 s and more on 2 cores, in steps of a usual length; the quick one's is a third of that.
WIDTH, QUICK_WIDTH = "model.arguments.width=480", "model.arguments.width=256"


def main() -> None:
    args = parser(__doc__.splitlines()[0]).parse_args()
    rows = Rows("Overhead of the platform over the bare loop")
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        _migrate(uri)
        starts, bare_starts = [], []
        for i in range(1 if args.quick else 2):
            bare_starts.append(_first_report(folder))
            starts.append(_first_step(folder, uri, i))
            print(f"start {i}: Ray Train alone {bare_starts[-1]:.1f} s, holdfast {starts[-1]:.1f} s", flush=True)
        slow = [*SLOW, QUICK_WIDTH if args.quick else WIDTH, f"epochs={2 if args.quick else 4}"]
        pairs = list(zip(_bare(folder, slow), _platform(folder, uri, slow), strict=True))
        for bare_seconds, seconds in pairs:
            print(f"epoch: bare {bare_seconds:.1f} s, with Ray and MLflow {seconds:.1f} s", flush=True)
        ratios = [seconds / bare_seconds for bare_seconds, seconds in pairs]
    rows.add(
        "epoch_ray_mlflow_over_bare", ratios, goal="<= 1.03", note=f"5 metrics a step, an epoch of {pairs[0][0]:.0f} s"
    )
    rows.add("seconds_to_first_step", starts, goal="<= 15", note="holdfast train recipe=digits_gradnorm")
    rows.add("ray_train_seconds_to_first_report", bare_starts, note="Ray Train alone: no model, no data, no tracking")
    for row in tracking_overhead.rows(args.quick):
        goal = "<= 0.3" if row["what"] == "milliseconds_per_logged_step" else None
        rows.add(row["what"], value=row["value"], n=row["n"], spread=row["spread"], interval=row["interval"], goal=goal)
    rows.close(args.json)


def _holdfast(folder: str, uri: str, *overrides: str) -> tuple[float, str]:
    """``(when it started, the run's id)`` of a command that has ended well."""
    out = Path(folder) / "outcome.json"
    command = [sys.executable, "-m", "pipelines.cli", "train", *overrides, f"tracking.uri={uri}", f"--json={out}"]
    command.append(f"storage={folder}/runs")
    started = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=_environment())
    return started, json.loads(out.read_text())["run_id"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def _migrate(uri: str) -> None:
    from pipelines.tracking import server

    server.check(uri)


def _history(uri: str, run_id: str, name: str) -> list[Any]:
    from pipelines.tracking import server

    return sorted(server.client(uri).get_metric_history(run_id, name), key=lambda m: m.step)


def _first_step(folder: str, uri: str, i: int) -> float:
    each = ("report.steps=1", "report.seconds=0")
    started, run_id = _holdfast(folder, uri, "recipe=digits_gradnorm", "epochs=1", f"seed={i}", *each)
    return _history(uri, run_id, "loss")[0].timestamp / 1e3 - started


RAY_TRAIN = """
import sys, time
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def report():
    return time.time()

ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
scaling = ScalingConfig(num_workers=1, resources_per_worker={"CPU": ray.cluster_resources()["CPU"]})
trainer = TorchTrainer(report, scaling_config=scaling, run_config=RunConfig(storage_path=sys.argv[1]))
print(trainer.fit().return_value)
"""


def _first_report(folder: str) -> float:
    from pipelines import cluster

    environment = {**_environment(), **cluster.LOCAL}
    started = time.time()
    command = [sys.executable, "-c", RAY_TRAIN, f"{folder}/ray"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=environment)
    return float(done.stdout.split()[-1]) - started


def _platform(folder: str, uri: str, slow: list[str]) -> list[float]:
    """Seconds of each epoch after the first, from the end of the one before."""
    _, run_id = _holdfast(folder, uri, *slow)
    ends = [m.timestamp / 1e3 for m in _history(uri, run_id, "epoch") if m.value == int(m.value)]
    return [end - before for before, end in pairwise(ends)]


def _bare(folder: str, slow: list[str]) -> list[float]:
    """The same of a process of its own, with nothing in the body of the loop."""
    code = "import sys; from benchmarks import overhead; overhead.bare(sys.argv[1:])"
    command = [sys.executable, "-c", code, *slow]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=_environment())
    return json.loads(done.stdout.splitlines()[-1])


def bare(overrides: list[str]) -> None:
    """Print the seconds of each epoch after the first."""
    import torch

    from pipelines import parts
    from pipelines.compose import compose
    from trainers import optimizers
    from trainers.loop import fit
    from trainers.state import State

    config = compose("train", overrides)
    torch.set_num_threads(os.cpu_count() or 1)
    data, objective = parts.data(config), parts.objective(config)
    model = parts.network(config, data, objective.second_order)
    optimizer = optimizers.build(model, parts.optimizer(config), config["optimizer"]["weight_decay"])
    reports = fit(State.create(model, optimizer), objective, data, parts.settings(config, len(data.classes)))
    ends = [time.perf_counter() for report in reports if report.kind == "epoch"]
    print(json.dumps([end - before for before, end in pairwise(ends)]))


if __name__ == "__main__":
    main()

"""On a cluster of `ray start`: by ``RAY_ADDRESS``, as a Ray job (as docs/training.md says), and on a node that goes."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from tests.pipelines.guides import ROOT, write_files
from tests.pipelines.ports import free_ports

GUIDE = (ROOT / "docs" / "training.md").read_text()
(BY_ADDRESS,) = re.findall(r"^RAY_ADDRESS=auto (holdfast train .*)$", GUIDE, re.M)
(BY_JOB,) = re.findall(r"^(ray job submit .*)$", GUIDE, re.M)
NODES = "python -c 'import json, ray; ray.init(logging_level=40); print(json.dumps(ray.nodes()))'"
DEFAULT = "holdfast train recipe=digits_standard"
SHORT = ["epochs=1", "batch_size=16", "alarm.policy=off", "evaluation.examples=8", "evaluation.attack.steps=2"]
SHORT += ["model.arguments.blocks=1", "model.arguments.width=4", "parallel.cpus_per_worker=1"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of a `ray start --head` of our own."""
    home = tmp_path_factory.mktemp("head")
    port, dashboard, agent = free_ports(3)
    environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
    for name in ("RAY_ADDRESS", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"):  # a Ray of this process's own may have set it
        environment.pop(name, None)
    environment["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"] = "0.2"
    # A path of its own: sockets allow 107 characters, and the address of another cluster must not be found there.
    place = Path("/tmp") / f"holdfast-ray-{os.getpid()}"
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2", f"--temp-dir={place}"]
    client = {**environment, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    try:
        with node(head, agent, home, environment) as process:
            deadline = time.monotonic() + 90
            while run(["ray", "job", "submit", "--", "true"], home, client).returncode:  # its agent starts last
                assert process.poll() is None, (home / "ray.log").read_text()
                assert time.monotonic() < deadline, "the cluster takes no jobs"
                time.sleep(0.5)
            yield {**client, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def node(
    arguments: list[str], agent: int, home: Path, environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """`ray start` in a process group of its own until the block ends; ``agent``: a port, whose default another
    cluster of this machine may have."""
    command = ["ray", "start", "--block", *arguments, f"--dashboard-agent-listen-port={agent}"]
    with (home / "ray.log").open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=home)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path)
    return tmp_path


def run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def places(folder: Path, tracking_uri: str) -> list[str]:
    return [f"storage={folder / 'runs'}", f"tracking.uri={tracking_uri}", f"--json={folder / 'outcome.json'}"]


def test_a_running_cluster_trains(cluster, folder, tracking_uri):
    done = run([*shlex.split(BY_ADDRESS), *SHORT, *places(folder, tracking_uri)], folder, cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((folder / "outcome.json").read_text())["ended"] == "finished 1 epochs"


def test_a_job_takes_recipes_and_package_along(cluster, folder, tracking_uri):
    environment = {k: v for k, v in cluster.items() if k != "RAY_ADDRESS"}
    lasting = [part for part in shlex.split(BY_JOB) if not part.startswith(("storage=", "tracking.uri="))]
    done = run([*lasting, *SHORT, *places(folder, tracking_uri)], folder, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads((folder / "outcome.json").read_text())
    assert outcome["ended"] == "finished 1 epochs"
    from mlflow import MlflowClient

    assert MlflowClient(tracking_uri).get_run(outcome["run_id"]).data.tags["trust"] == "my_package"


def test_a_job_whose_results_would_be_deleted_is_refused(cluster, folder):
    environment = {k: v for k, v in cluster.items() if k != "RAY_ADDRESS"}
    done = run(
        ["ray", "job", "submit", "--working-dir", ".", "--", "holdfast", "train", "recipe=digits_standard"],
        folder,
        environment,
    )
    assert done.returncode != 0
    assert "which Ray deletes after the job; give s3://bucket/prefix" in done.stdout + done.stderr


def test_a_node_that_will_be_taken_away_has_a_checkpoint_at_once(cluster, folder, tracking_uri):
    """A real drain of the node that trains; nothing else makes a checkpoint inside an epoch here."""
    (agent,) = free_ports(1)
    arguments = [f"--address={cluster['RAY_ADDRESS']}", "--num-cpus=4", '--resources={"spot": 1}']
    command = [*shlex.split(DEFAULT), *SHORT, "parallel.cpus_per_worker=3", "epochs=500", "batch_size=2"]
    command += ["report.steps=5", "checkpoint.minutes=1000", "checkpoint.keep=999", *places(folder, tracking_uri)]
    with node(arguments, agent, folder, cluster):
        deadline = time.monotonic() + 60
        while '"spot": 1.0' not in (said := run(shlex.split(NODES), folder, cluster).stdout):
            assert time.monotonic() < deadline, said
        (spot,) = [n["NodeID"] for n in json.loads(said) if "spot" in n["Resources"]]
        training = subprocess.Popen(command, cwd=folder, env=cluster, stdout=subprocess.PIPE, text=True)
        assert training.stdout is not None
        try:
            assert any("epoch 1/500" in line for line in training.stdout)
            assert inside_an_epoch(folder) == []
            drain = f"ray drain-node --node-id={spot} --reason=DRAIN_NODE_REASON_PREEMPTION --reason-message=test"
            done = run([*shlex.split(drain), "--deadline-remaining-seconds=600"], folder, cluster)
            assert done.returncode == 0, done.stderr
            deadline = time.monotonic() + 60
            while not inside_an_epoch(folder):
                assert time.monotonic() < deadline, "no checkpoint inside an epoch"
                time.sleep(0.2)
        finally:
            training.kill()
            training.wait()
    assert len(inside_an_epoch(folder)) == 1


def inside_an_epoch(folder: Path) -> list[int]:
    """Of every whole checkpoint made there, its step in its epoch."""
    steps = []
    for path in (folder / "runs").glob("*/checkpoint_*/state.safetensors"):
        with suppress(SafetensorError, FileNotFoundError), safe_open(path, "pt") as file:
            steps.append(json.loads(file.metadata()["about"])["step_in_epoch"])
    return [step for step in steps if step]

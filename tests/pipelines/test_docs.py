"""Every command and every program in the README and the guides, run as written but for the budget."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = (
    "epochs=1",
    "batch_size=16",
    "workers=1",
    "alarm.examples=8",
    "evaluation.examples=8",
    "evaluation.attack.steps=2",
)
DIGITS = ("model.arguments.blocks=1", "model.arguments.width=4")
IMAGES = ("model.name=holdfast_resnet", "model.arguments.blocks=1", "data.validation=8", "schedule.warmup_epochs=0")
STREAMED = ("data.input_size=[3,16,16]", "data.loaders=0")


def blocks(kind: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        found += [(page.name, text) for text in re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.M | re.S)]
    return found


COMMANDS = [(page, line) for page, text in blocks("sh") for line in text.splitlines() if line.strip()]
VERBS = sorted({line for _, line in COMMANDS if line.startswith("holdfast ")})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data and the recipes that the guides speak of."""
    place = tmp_path_factory.mktemp("guides")
    random = np.random.default_rng(0)
    jpegs = []
    for _ in range(64):
        buffer = BytesIO()
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    _parquet(place / "data" / "cifar10", jpegs)
    _folders(place / "images", jpegs)
    _tars(place / "shards", jpegs)
    for name, text in {"mine": _yaml_of_the_guide(), "theirs": THEIRS}.items():
        path = place / "my_recipes" / "recipe" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (place / "my_package.py").write_text("from trainers.objectives.standard import Standard as Ours\n")
    return place


THEIRS = """# @package _global_
# An objective of one's own.
defaults:
  - digits_standard
  - _self_
objective:
  _target_: my_package.Ours
"""


def _yaml_of_the_guide() -> str:
    (text,) = (text for page, text in blocks("yaml") if page == "training.md")
    return text


def _parquet(place: Path, jpegs: list[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    place.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"image": {"bytes": jpeg, "path": None}, "label": i % 2} for i, jpeg in enumerate(jpegs)]
        pq.write_table(pa.Table.from_pylist(rows), place / f"{split}-00000-of-00001.parquet")


def _folders(place: Path, jpegs: list[bytes]) -> None:
    for split in ("train", "val"):
        for i, jpeg in enumerate(jpegs):
            path = place / split / ("cat", "dog")[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)


def _tars(place: Path, jpegs: list[bytes]) -> None:
    place.mkdir()
    for split, shard in (("train", 0), ("train", 1), ("val", 0)):
        with tarfile.open(place / f"{split}-{shard}.tar", "w") as tar:
            for i, jpeg in enumerate(jpegs):
                for name, content in ((f"{shard}{i:04}.jpg", jpeg), (f"{shard}{i:04}.cls", str(i % 2).encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, BytesIO(content))


def budget(line: str) -> list[str]:
    """What a test adds to a documented training."""
    if "folder_gradnorm" in line:
        return [*SMALL, *IMAGES, *STREAMED, *(["data.lanes=2"] if "webdataset" in line else [])]
    return [*SMALL, *(IMAGES if "cifar10" in line else DIGITS)]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("line", VERBS)
def test_a_command_of_the_guides_runs(line, folder, monkeypatch):
    from pipelines.cli import OK, main

    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    arguments = shlex.split(line)[1:]
    assert main([*arguments, *(budget(line) if arguments[0] == "train" else ())]) == OK


def test_the_other_commands_are_known():
    """Those that set a machine up are targets CI runs; the rest is run by the tests named here."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    ci = (ROOT / ".ci" / "run").read_text()
    for _, line in COMMANDS:
        if line.startswith("make "):
            target = line.split()[1]
            assert target in targets
            assert f"make {target}" in ci
        elif not line.startswith("holdfast "):
            assert line in (". .venv/bin/activate", MLFLOW, RAY_JOB), f"{line}: no test runs this"


MLFLOW = "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"
RAY_JOB = "ray job submit --working-dir . -- holdfast train --recipes my_recipes recipe=mine"


@contextmanager
def serving(command: list[str], cwd: Path, url: str, environment: dict[str, str] | None = None) -> Iterator[bytes]:
    """``command`` in a process group of its own until the block ends; what it answers at ``url``."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as page:
                    answer = page.read()
                    break
            except OSError:
                assert process.poll() is None, f"{command} has ended"
                assert time.monotonic() < deadline, f"{url} does not answer"
                time.sleep(0.3)
        yield answer
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_the_page_opens(folder, tracking_template):
    (folder / "runs").mkdir(exist_ok=True)
    if not (folder / "runs" / "mlflow.db").exists():
        shutil.copyfile(tracking_template, folder / "runs" / "mlflow.db")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", *shlex.split(MLFLOW), "--port", str(port), "--workers", "1"]
    with serving(command, folder, f"http://127.0.0.1:{port}/") as page:
        assert b"MLflow" in page


def test_a_ray_job_trains(folder):
    """The line of the guide, with the cluster's address and the budget, on a head node of its own."""
    head, dashboard, client, agent = free_ports(4)
    bin_ = Path(sys.executable).parent
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PATH": f"{bin_}:{os.environ['PATH']}"}
    environment.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="rj", dir="/tmp") as short:  # sockets allow 107 characters
        start = [str(bin_ / "ray"), "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={short}"]
        start += [f"--port={head}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        start += [f"--dashboard-agent-listen-port={agent}"]
        url = f"http://127.0.0.1:{dashboard}"
        with serving(start, folder, f"{url}/api/version", environment):
            words = shlex.split(RAY_JOB)
            words[3:3] = [f"--address={url}"]
            places = [f"storage={folder}/job", f"tracking.uri=sqlite:///{folder}/job/mlflow.db"]
            command = [str(bin_ / words[0]), *words[1:], *SMALL, *DIGITS, *places]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "finished 1 epochs" in done.stdout


@pytest.mark.usefixtures("ray_cluster")
def test_the_programs_of_the_readme_run(folder, monkeypatch, capsys):
    from pipelines.cli import OK, main

    monkeypatch.chdir(folder)
    register = [*SMALL, *DIGITS, "register_as=digits", "seed=5"]
    assert main(["train", "recipe=digits_standard", *register]) == OK
    programs = [text for _, text in blocks("python")]
    assert len(programs) == 2
    for text in programs:
        exec(compile(text, "README.md", "exec"), {})
    assert "robust_accuracy" in capsys.readouterr().out


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"

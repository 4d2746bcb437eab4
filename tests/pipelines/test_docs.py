"""Every command and every program in the README and the guides, run as written but for the budget, and every setting
they mention."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import STOPPED
from tests.pipelines.guides import PAGES, blocks, write_world
from tests.pipelines.ports import free_ports

ROOT = Path(__file__).parents[2]
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


COMMANDS = [
    (page, line)
    for page, text in blocks("sh")
    if page not in ("circle.md", "cluster.md")
    for line in text.splitlines()
    if line.strip()
]
"""Those of circle.md are run by test_circle.py, those of cluster.md by tests/k8s/test_guide.py."""
ELSEWHERE = ("RAY_ADDRESS=auto holdfast train ", "ray job submit ")
"""Run by test_clusters.py, on a cluster of their own."""
VERBS = sorted({line for _, line in COMMANDS if line.startswith("holdfast ")})
TRUSTED = [line for line in VERBS if "trust=" in line and line.startswith("holdfast train ")]
"""Run by test_clusters.py: Ray's workers look for packages in the folder where ``ray.init`` was called."""
REGISTERING = [line for line in VERBS if line.startswith("holdfast train ") and "register_as=digits" in line]
"""The guides speak of the first one's version; the others are registered after it."""
JUDGING = [line for _, line in COMMANDS if line.startswith(("holdfast evaluate ", "holdfast compare "))]
"""Run in order: they judge what a command registered, and compare what they left."""
PROMOTING = [
    line for _, line in COMMANDS if line.startswith(("holdfast promote ", "holdfast rollback ", "holdfast models"))
]
"""Run in order, after a second version was registered."""
RETRAINING = [line for _, line in COMMANDS if line.startswith("holdfast retrain ")]
"""Run in order, after the promotions."""
SEARCHING = [line for _, line in COMMANDS if line.startswith("holdfast tune ")]
SCHEDULING = [line for _, line in COMMANDS if line.startswith("holdfast schedule ")]
COSTING = [line for _, line in COMMANDS if line.startswith("holdfast cost")]
"""Run last: they count what the others did."""
APART = (*TRUSTED, *REGISTERING, *JUDGING, *PROMOTING, *RETRAINING, *SEARCHING, *SCHEDULING, *COSTING)
JUDGED = ("attack=pgd", "attack.steps=2", "beyond=none", "report.pictures=1", "doubts=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("guides")
    write_world(place)
    return place


def budget(line: str) -> list[str]:
    """What a test adds to a documented training."""
    if "folder_gradnorm" in line:
        return [*SMALL, *IMAGES, *STREAMED, *(["data.lanes=2"] if "webdataset" in line else [])]
    return [*SMALL, *(IMAGES if "cifar10" in line else DIGITS)]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("line", [line for line in VERBS if line not in APART])
def test_a_command_of_the_guides_runs(line, folder, monkeypatch):
    from pipelines.cli import OK, main

    monkeypatch.chdir(folder)
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
            known = line in (". .venv/bin/activate", MLFLOW, INDEX) or line.startswith(ELSEWHERE)
            assert known, f"{line}: no test runs this"


MLFLOW = "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"
INDEX = "python -m trainers.data.shards shards"


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


def test_the_page_opens(folder, tracking_template):
    (folder / "runs").mkdir(exist_ok=True)
    if not (folder / "runs" / "mlflow.db").exists():
        shutil.copyfile(tracking_template, folder / "runs" / "mlflow.db")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", *shlex.split(MLFLOW), "--port", str(port), "--workers", "1"]
    with serving(command, folder, f"http://127.0.0.1:{port}/") as page:
        assert b"MLflow" in page


def test_a_shard_index_is_written(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *shlex.split(INDEX)[1:]], cwd=folder, env=environment, check=True, timeout=120)
    assert (folder / "shards" / "holdfast-index.json").exists()


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_the_programs_of_the_readme_run_on_what_its_command_registers(folder, monkeypatch, capsys):
    from pipelines.cli import OK, main

    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")  # the programs set it, and it should not stay
    command, *others = REGISTERING
    assert main([*shlex.split(command)[1:], *budget(command)]) == OK
    programs = [text for page, text in blocks("python") if page == "README.md"]
    assert any("models:/digits/1" in text for text in programs)
    for text in programs:
        exec(compile(text, "README.md", "exec"), {})
    assert "robust_accuracy" in capsys.readouterr().out
    _judge(folder, monkeypatch)
    assert main([*shlex.split(command)[1:], *budget(command), "seed=1"]) == OK
    _promote()
    _retrain(budget(command))
    _cost()
    for other in others:
        assert main([*shlex.split(other)[1:], *budget(other)]) == OK, other


LENIENT = """
evaluation: [data=digits, threats.Linf=0.3, examples=3]
clean: {rule: any}
robust: {rule: any}
doubts: [%s]
"""


def _promote() -> None:
    """The promotions of the guides, on few images and by a policy that any network passes."""
    from pipelines.cli import OK, main
    from trainers.evaluation import doubts

    Path("lenient/policy").mkdir(parents=True)
    names = ", ".join(f'"{check}"' for check in doubts.CHECKS)
    Path("lenient/policy/lenient.yaml").write_text(LENIENT % names)
    assert len(PROMOTING) > 6
    for line in PROMOTING:
        policy = ("policy=lenient", "--recipes=lenient") if "promote" in line else ()
        assert main([*shlex.split(line)[1:], *policy]) == OK, line


def _retrain(small: list[str]) -> None:
    """The champion is what these commands would make: there is nothing to do, until it is forced."""
    from pipelines.cli import OK, main
    from pipelines.tracking import versions

    uri = "sqlite:///runs/mlflow.db"
    before = versions.aliases(uri, "digits")["champion"]
    for line in RETRAINING:
        arguments = [*shlex.split(line)[1:], *small, "policy=lenient", "--recipes=lenient"]
        assert main(arguments) == OK, line
        after = versions.aliases(uri, "digits")["champion"]
        assert (after != before) == ("--force" in line)
    assert "--force" in RETRAINING[-1]


def _cost() -> None:
    """Each version was trained and judged by the gate, which took some time."""
    from pipelines.cli import OK, main
    from pipelines.tracking import versions

    run_id = versions.find("sqlite:///runs/mlflow.db", "digits", 1).run_id or ""
    for line in COSTING:
        if "search=" not in line:
            assert main(shlex.split(line.replace("RUN_ID", run_id))[1:]) == OK, line
    told = json.loads(Path("cost.json").read_text())["versions"]
    assert len(told) > 1
    assert all(version[part]["cpu_hours"] > 0 for version in told for part in ("training", "promotion"))


ONE = ("search.trials=1", "finalists=1", "seeds=1", "examples=3")
"""Of a search: one trial of two epochs, proven by one seed."""
AXES = ("search.space.objective.threat.eps.grid=[0.1]", "search.space.model.activation.grid=[silu]")


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_the_searches_of_the_guide_run(tmp_path, monkeypatch, capsys):
    from pipelines.cli import OK, main
    from pipelines.tracking import versions

    monkeypatch.chdir(tmp_path)
    assert len(SEARCHING) == 3
    for line in SEARCHING:
        small = [*SMALL, *DIGITS, *ONE, "epochs=2", *(AXES if "search=digits_pgd" in line else ())]
        arguments = shlex.split(line)[1:]
        assert main([*arguments, *(() if "resume=" in line else small)]) == OK, line
        assert "not registered" in capsys.readouterr().out or "register_as" in line
    (only,) = versions.listed("sqlite:///runs/mlflow.db", "digits")
    assert only.aliases == ("challenger",)
    assert only.tags["search"]
    (costing,) = [line for line in COSTING if "search=" in line]
    assert main(shlex.split(costing)[1:]) == OK
    assert "not counted" not in capsys.readouterr().out


@pytest.mark.parametrize("line", SCHEDULING)
def test_a_timetable_of_the_guide_runs(line, folder):
    """The process until its first look has ended; the look itself is stopped before it trains."""
    command = [sys.executable, "-m", "pipelines.cli", *shlex.split(line)[1:], "tracking.uri=http://127.0.0.1:9"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
    if "cron=" in line:
        assert said.startswith("17 3 * * * cd ")
        assert "pipelines.cli retrain recipe=digits_gradnorm register_as=digits" in said
    else:
        assert said.startswith("retrain ended with code 2; the next look is at ")
        assert process.returncode == STOPPED


def _judge(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluations and comparisons of the guides, in order, by a cheap attack; what is registered is there."""
    from pipelines.cli import OK, main

    assert len(JUDGING) > 5
    for line in JUDGING:
        small = ("data.input_size=[3,32,32]", "model.stem=standard") if "data=folder" in line else ()
        arguments = shlex.split(line)[1:]
        assert main([*arguments, *((*JUDGED, *small) if arguments[0] == "evaluate" else ())]) == OK, line


@pytest.mark.parametrize("text", [text for page, text in blocks("python") if page != "README.md"])
def test_a_program_of_the_guides_runs(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "docs", "exec"), {})
    assert capsys.readouterr().out


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


BASES = (
    ("recipe=digits_gradnorm",),
    ("recipe=digits_pgd",),
    ("recipe=digits_edges",),
    ("recipe=digits_trades",),
    ("recipe=cifar10_gradnorm",),
    ("recipe=folder_gradnorm", "data=webdataset"),
    ("recipe=cifar10_pgd", "data=torchvision"),
)


def mentioned() -> set[str]:
    """Every ``key=value`` in backticks, and every dotted key, of the guides."""
    from pipelines.settings import Evaluate, Promote, Retrain, Rollback, Timetable, Train, Tune

    verbs = (Train, Evaluate, Promote, Rollback, Tune, Retrain, Timetable)
    known = {field.name for verb in verbs for field in fields(verb)}
    found = set()
    for page in PAGES:
        if page.name in ("errors.md", "cluster.md"):
            continue  # each checked by tests of its own
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for word in " ".join(re.findall(r"`([^`\n]+)`", prose)).split():
            key, equals, value = word.partition("=")
            if key.endswith((".json", ".html", ".md")) or key == "evaluation.report":
                continue  # files and a tag, no settings
            if key.split(".")[0] in known and re.fullmatch(r"[a-z_.]+", key) and ("." in key or (equals and value)):
                found.add(f"{key}={value or 0}")
    return found


def test_every_setting_the_guides_mention_exists():
    from pipelines import compose
    from pipelines.errors import Misuse

    settings = mentioned()
    assert len(settings) > 60
    bases = [compose._compose("train", list(base), None) for base in BASES]
    bases += [compose._compose(verb, [], None) for verb in ("promote", "rollback", "tune", "retrain", "schedule")]
    bases += [compose._compose("evaluate", list(base), None) for base in ((), ("attack=pgd", "data=folder"))]

    def exists(setting: str, base: Any) -> bool:
        override = compose._parse(setting)
        with suppress(Misuse):
            if compose._is_group(str(override.key_or_group), None):
                compose._check_choice(override, None)
            else:
                compose._known(override, base)
            return True
        return False

    assert [s for s in sorted(settings) if not any(exists(s, base) for base in bases)] == []

"""Retraining again and again: a line for cron, or a process that stays."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import schedule
from pipelines.cli import STOPPED
from pipelines.errors import Misuse
from pipelines.retraining import doorbell

ROOT = Path(__file__).parents[2]
TRAINING = ("recipe=digits_standard", "register_as=digits")
QUIET = Console(file=io.StringIO())


@pytest.fixture(autouse=True)
def _own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Locks of the test's own, and nothing left where it runs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(doorbell.SECRET, raising=False)
    monkeypatch.chdir(tmp_path)


def by_cron(line: str) -> None:
    """As cron reads a line: five fields, and in the rest ``%`` is a line's end unless escaped; by sh, from home."""
    command = line.split(" ", 5)[5]
    assert not re.search(r"(?<!\\)%", command)
    subprocess.run(["sh", "-c", command.replace(r"\%", "%")], cwd="/", check=True, timeout=60)


def test_a_line_of_a_crontab_runs_what_it_was_told(tmp_path, monkeypatch):
    folder = tmp_path / "a 50% 'folder'"
    folder.mkdir()
    monkeypatch.chdir(folder)
    words = ["a b", "100%", "it's", '"$HOME"', "`date`", "when.fresh=[data.path=x]", "*", r"\%"]
    show = "import sys; print(sys.argv[1:]); print('err', file=sys.stderr)"
    line = schedule.crontab("17 3 * * *", [sys.executable, "-c", show, *words])
    assert line.startswith("17 3 * * * cd ")
    assert "\n" not in line
    by_cron(line)
    by_cron(line)
    assert (folder / "retrain.log").read_text() == f"{words}\nerr\n" * 2


@pytest.mark.parametrize("cron", ["17 3 * * *", "*/5 0-6 1,15 * 1-5", "@daily"])
def test_cron_prints_the_line_and_nothing_runs(cron, capsys, monkeypatch):
    monkeypatch.setattr(schedule, "_run", lambda command: pytest.fail("it ran"))
    schedule.schedule([f"cron={cron}", *TRAINING, "when.age_days=7"], ["--json", "out.json"], QUIET, None)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{cron} cd {Path.cwd()} && ")
    told = "-m pipelines.cli retrain recipe=digits_standard register_as=digits when.age_days=7 --json out.json"
    assert line.endswith(f"{told} >> retrain.log 2>&1")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "say when: every=86400 runs it once a day"),
        (["every=60", "cron=@daily"], "say when: every=86400 runs it once a day"),
        (["every=0"], "every=0 must be above 0"),
        (["every=nan"], "every=nan must be above 0"),
        (["cron=17 3 * *"], r"cron=17 3 \* \* is no time: give minute, hour, day, month and weekday"),
        (["cron=@often"], "cron=@often is no time"),
        (["cron=@daily", "listen=127.0.0.1:8099"], "listen=127.0.0.1:8099 needs a process that stays"),
        (["every=60", "listen=8099"], "listen=8099 is no place to listen at"),
        (["every=60", "listen=127.0.0.1:8099"], "needs the webhook's secret in HOLDFAST_MLFLOW_WEBHOOK_SECRET"),
        (["every=60", "when.weather=bad"], "when.weather: unknown setting"),
        (["cron=@daily", "epoch=3"], "epoch: unknown setting"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(lines, said, monkeypatch, capsys):
    monkeypatch.setattr(schedule, "_run", lambda command: pytest.fail("it ran"))
    with pytest.raises(Misuse, match=said):
        schedule.schedule([*lines, *TRAINING], [], QUIET, None)
    assert not capsys.readouterr().out


def test_a_model_is_on_one_schedule_of_a_machine():
    with schedule._alone("digits", "sqlite:///a"):
        with (
            pytest.raises(Misuse, match="register_as=digits is on a schedule on this machine already"),
            schedule._alone("digits", "sqlite:///a"),
        ):
            pytest.fail("both are")
        with schedule._alone("digits", "sqlite:///b"), schedule._alone("cifar", "sqlite:///a"):
            pass
    with schedule._alone("digits", "sqlite:///a"):
        pass


class Enough(Exception):
    pass


def test_a_ring_begins_the_next_look_at_once(monkeypatch):
    """During a look it is heard after it; heard once, it is over.  Without it each would wait for an hour."""
    rung, looks = threading.Event(), []

    def look(command: list[str]) -> int:
        looks.append(rung.is_set())
        if len(looks) == 4:
            raise Enough
        if len(looks) == 2:
            threading.Timer(0.05, rung.set).start()
        else:
            rung.set()
        return 3

    monkeypatch.setattr(schedule, "_run", look)
    console = Console(file=io.StringIO(), width=200)
    rung.set()
    with pytest.raises(Enough):
        schedule._loop(["holdfast"], 3600.0, rung, console)
    assert looks == [False] * 4
    assert console.file.getvalue().count("retrain ended with code 3; the next look is at ") == 3


def test_looks_go_on_whatever_a_look_ends_with_and_however_long_it_takes(monkeypatch):
    codes = iter((0, 1, -9, 3))
    monkeypatch.setattr(schedule, "_run", lambda command: next(codes))
    with pytest.raises(StopIteration):
        schedule._loop(["holdfast"], 0.01, threading.Event(), QUIET)


def test_each_look_is_a_process_and_a_session_of_its_own():
    leads = "import os; raise SystemExit(3 if os.getsid(0) == os.getpid() else 1)"
    assert schedule._run([sys.executable, "-c", leads]) == 3


def test_a_process_that_is_ended_ends_its_retraining(tmp_path):
    """The retraining waits for a tracking server that takes the connection, and no answer comes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(120)
        lines = ["every=3600", *TRAINING, f"tracking.uri=http://127.0.0.1:{silent.getsockname()[1]}"]
        command = [sys.executable, "-m", "pipelines.cli", "schedule", *lines]
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                with silent.accept()[0]:
                    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                    assert b"retrain" in Path(f"/proc/{child}/cmdline").read_bytes()
                    process.send_signal(signal.SIGTERM)
                    _, said = process.communicate(timeout=120)
            finally:
                process.kill()
    assert process.returncode == STOPPED
    assert not Path(f"/proc/{child}").exists()
    assert said.count("holdfast: stopped") == 2

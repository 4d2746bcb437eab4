"""Jobs as processes of this machine: they outlive who submitted them, and run once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k8s import job as jobs
from k8s import submit as submitting
from k8s.backends import local
from k8s.backends.local import Local
from k8s.errors import Misuse
from k8s.settings import Settings
from k8s.state import FAILURE, LOST, OK, REFUSED, RUNNING, STOPPED
from tests.k8s.plane import until

PROGRAM = """
import pathlib, sys, time
what, place = sys.argv[1], pathlib.Path(sys.argv[2])
with (place / "runs").open("a") as file:
    file.write("x")
print("begun", flush=True)
print("do", end="", flush=True)
if what == "wait":
    while not (place / "go").exists():
        time.sleep(0.05)
print("ne", end="", flush=True)  # and no end of the line
sys.exit(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Jobs in a folder of the test's, whose commands are those of a small program in place of holdfast's."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(local, "HOLDFAST", (sys.executable, str(program)))
    yield Settings(backend="local", folder=str(tmp_path / "jobs"))
    (tmp_path / "go").touch()  # a test that fails leaves no job that waits for ever


def submit(settings: Settings, *command: str, **more: object) -> tuple[submitting.State, list[str], list[str]]:
    """The end, what was said, and the lines of its log."""
    said: list[str] = []
    lines: list[str] = []
    words = [f"folder={settings.folder}", "backend=local", *(f"{key}={value}" for key, value in more.items())]
    found = submitting.submit(words, command, said.append, lines.append, True, None)
    return found, said, lines


@pytest.mark.parametrize(("exit_code", "code"), [(0, OK), (1, FAILURE), (3, REFUSED), (5, STOPPED), (42, FAILURE)])
def test_a_job_ends_with_its_commands_code(settings: Settings, tmp_path: Path, exit_code: int, code: int) -> None:
    found, _, lines = submit(settings, "run", str(tmp_path), str(exit_code))
    assert (found.code, found.exit_code) == (code, exit_code)
    assert lines == ["begun", "done"]
    assert submitting.exit_code(found) == code
    assert submitting.exit_code(found, entrypoint_code=True) == exit_code


def test_submitted_again_it_is_told_and_not_run_again(settings: Settings, tmp_path: Path) -> None:
    submit(settings, "run", str(tmp_path), "1")
    found, said, lines = submit(settings, "run", str(tmp_path), "1")
    assert (found.code, lines) == (FAILURE, ["begun", "done"])
    assert said[1].endswith("had ended before; again=true runs it anew")
    assert (tmp_path / "runs").read_text() == "x"
    submit(settings, "run", str(tmp_path), "1", again="true")
    assert (tmp_path / "runs").read_text() == "xx"


def test_two_at_once_run_it_once(settings: Settings, tmp_path: Path) -> None:
    ends: list[int | None] = []
    threads = [
        threading.Thread(target=lambda: ends.append(submit(settings, "wait", str(tmp_path))[0].code)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    until(lambda: (tmp_path / "runs").exists())
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert ends == [OK, OK, OK]
    assert (tmp_path / "runs").read_text() == "x"


def test_the_same_command_elsewhere_is_refused_while_it_runs(settings: Settings, tmp_path: Path) -> None:
    place = Local(settings)
    first = jobs.make(settings, ("wait", str(tmp_path)))
    assert place.start(first)
    with pytest.raises(Misuse, match=f"already running as {first.name}"):
        place.start(jobs.make(Settings(storage="elsewhere"), ("wait", str(tmp_path))))
    with pytest.raises(Misuse, match="is taken by another job"):
        place.start(jobs.make(Settings(name=first.name), ("run", str(tmp_path))))
    (tmp_path / "go").touch()
    until(lambda: place.state(first.name).code == OK)


def test_while_one_starts_it_others_see_it_run_and_start_it_no_more(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come in between what is written of the job and its process."""
    first, spawn = jobs.make(settings, ("wait", str(tmp_path))), subprocess.Popen
    elsewhere = jobs.make(Settings(storage="elsewhere"), ("wait", str(tmp_path)))
    asks = {
        "state": lambda: Local(settings).state(first.name).phase,
        "start": lambda: Local(settings).start(first),
        "elsewhere": lambda: Local(settings).start(elsewhere),
        "list": lambda: [each.phase for each in Local(settings).jobs()],
    }
    found: dict[str, object] = {}

    def ask(what: str) -> None:
        try:
            found[what] = asks[what]()
        except Misuse as error:
            found[what] = str(error)

    threads = [threading.Thread(target=ask, args=(what,)) for what in asks]

    def slow(*words: Any, **more: Any) -> Any:
        monkeypatch.setattr(subprocess, "Popen", spawn)
        for thread in threads:
            thread.start()
        threads[0].join(0.5)  # it waits; had it an answer by now, it would be a wrong one
        return spawn(*words, **more)

    monkeypatch.setattr(subprocess, "Popen", slow)
    assert Local(settings).start(first)
    for thread in threads:
        thread.join()
    assert f"already running as {first.name}" in str(found.pop("elsewhere"))
    assert found == {"state": RUNNING, "start": False, "list": [RUNNING]}
    (tmp_path / "go").touch()
    until(lambda: Local(settings).state(first.name).code == OK)
    assert (tmp_path / "runs").read_text() == "x"


def test_a_last_line_without_its_end_is_shown_whole(settings: Settings, tmp_path: Path) -> None:
    place = Local(settings)
    job = jobs.make(settings, ("wait", str(tmp_path)))
    place.start(job)
    log = place.root / job.name / "log"
    until(lambda: log.exists() and log.read_text() == "begun\ndo")
    assert [line for _, _, line in place.logs(job.name, None)] == ["begun"]
    (tmp_path / "go").touch()
    until(lambda: place.state(job.name).code == OK)
    assert [line for _, _, line in place.logs(job.name, None)] == ["begun", "done"]


def test_a_job_cancelled_at_once_is_ended(settings: Settings, tmp_path: Path) -> None:
    """Before its process has a pid to be found by, and so also when it runs anew."""
    job, place = jobs.make(settings, ("wait", str(tmp_path))), Local(settings)
    for again in (False, True):
        assert Local(replace(settings, again=again)).start(job)
        place.cancel(job.name)
        until(lambda: place.state(job.name).code is not None)
        assert place.state(job.name).exit_code == 128 + signal.SIGTERM


def test_a_command_that_outlives_its_keeper_is_not_run_beside_itself(settings: Settings, tmp_path: Path) -> None:
    place = Local(settings)
    job = jobs.make(settings, ("wait", str(tmp_path)))
    place.start(job)
    until(lambda: (tmp_path / "runs").exists() and (place.root / job.name / "pid").exists())
    os.kill(int((place.root / job.name / "pid").read_text()), signal.SIGKILL)
    assert not place.start(job)
    assert place.state(job.name).phase == RUNNING
    (tmp_path / "go").touch()
    until(lambda: place.state(job.name).code == LOST)
    assert (tmp_path / "runs").read_text() == "x"
    assert [line for _, _, line in place.logs(job.name, None)] == ["begun", "done"]


def test_a_cancelled_job_is_ended(settings: Settings, tmp_path: Path) -> None:
    place = Local(settings)
    job = jobs.make(settings, ("wait", str(tmp_path)))
    place.start(job)
    until(lambda: (tmp_path / "runs").exists())
    assert place.state(job.name).phase == RUNNING
    place.cancel(job.name)
    until(lambda: place.state(job.name).code is not None)
    assert place.state(job.name).exit_code == 128 + signal.SIGTERM


def test_a_killed_job_is_lost_and_the_same_command_runs_it_again(settings: Settings, tmp_path: Path) -> None:
    place = Local(settings)
    job = jobs.make(settings, ("wait", str(tmp_path)))
    place.start(job)
    until(lambda: (tmp_path / "runs").exists() and (place.root / job.name / "pid").exists())
    os.killpg(int((place.root / job.name / "pid").read_text()), signal.SIGKILL)
    until(lambda: place.state(job.name).code == LOST)
    (tmp_path / "go").touch()
    found, _, _ = submit(settings, "wait", str(tmp_path))
    assert found.code == OK
    assert (tmp_path / "runs").read_text() == "xx"


def test_a_job_outlives_its_submitter(settings: Settings, tmp_path: Path) -> None:
    """A whole process of `holdfast submit`, killed in mid-wait."""
    words = ["submit", "backend=local", f"folder={settings.folder}", "name=mine", "--", "recipes"]
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *words], capture_output=True, text=True, check=False)
    assert done.returncode == OK, done.stderr
    assert "digits_gradnorm" in done.stdout
    place = Local(settings)
    job = jobs.make(settings, ("wait", str(tmp_path)))
    code = (
        "from k8s.backends import local; from k8s import submit; import sys; "
        f"local.HOLDFAST = {local.HOLDFAST!r}; "
        f"words, command = ['backend=local', 'folder={settings.folder}'], ['wait', {str(tmp_path)!r}]; "
        "submit.submit(words, command, print, print, True, None)"
    )
    submitter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    until(lambda: (tmp_path / "runs").exists())
    submitter.kill()
    submitter.wait()
    assert place.state(job.name).phase == RUNNING
    (tmp_path / "go").touch()
    found, said, lines = submit(settings, "wait", str(tmp_path))
    assert (found.code, lines) == (OK, ["begun", "done"])
    assert "is there already" in said[0]
    assert (tmp_path / "runs").read_text() == "x"


def test_the_outcome_is_left_for_a_script_and_jobs_are_listed(settings: Settings, tmp_path: Path) -> None:
    words = [f"folder={settings.folder}", "backend=local"]
    out = tmp_path / "out.json"
    submitting.submit(words, ("run", str(tmp_path)), print, print, True, out)
    assert json.loads(out.read_text())["code"] == OK
    time.sleep(1.1)  # their order is by the second
    submitting.submit(words, ("run", str(tmp_path), "3"), print, print, True, None)
    assert [each.code for each in submitting.listing(words, print)] == [REFUSED, OK]
    with pytest.raises(Misuse, match="no such job"):
        submitting.status("other", words, print, None)
    with pytest.raises(Misuse, match="its folder is not there"):
        submitting.submit(words, ("run", str(tmp_path)), print, print, True, tmp_path / "nowhere" / "out.json")

"""Jobs as processes of this machine, which outlive the one that submitted them.

A job is a folder: ``job.json`` (what it is), ``log``, ``exit`` (its exit code, once it has ended) and ``lock``, held by
the process that runs it: so that it is known to be alive, and never runs twice at once.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k8s import state
from k8s.errors import Misuse
from k8s.job import Job
from k8s.settings import Settings
from k8s.state import State

HOLDFAST = (sys.executable, "-m", "pipelines.cli")
START_SECONDS = 10.0


class Local:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.root = Path(settings.folder).expanduser()
        self.where = str(self.root)

    def start(self, job: Job) -> bool:
        """Whether it was started; else it runs, or has ended, already."""
        folder = self.root / job.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misuse(f"folder={self.root} cannot be written ({error}); give another") from error
        about = self._about(folder)
        if about and about["inputs"] != job.inputs:
            raise Misuse(
                f"name={job.name} is taken by another job ({about['line']}); give another name, or leave name out"
            )
        if about:
            found = self._read(folder)
            if found.code is None or (found.reason != "Lost" and not self.settings.again):
                return False
        self._alone(job)
        for name in ("exit", "log"):
            (folder / name).unlink(missing_ok=True)
        made = {
            "line": job.line,
            "argv": [*HOLDFAST, *job.command],
            "inputs": job.inputs,
            "digest": job.digest,
            "started": _now(),
        }
        (folder / "job.json").write_text(json.dumps(made))
        return self._spawn(folder)

    def _spawn(self, folder: Path) -> bool:
        places = {"MLFLOW_TRACKING_URI": self.settings.tracking_uri, "HOLDFAST_STORAGE": self.settings.storage}
        env = {**os.environ, **{key: value for key, value in places.items() if value}, **self.settings.env}
        child = subprocess.Popen(
            [sys.executable, "-m", "k8s.backends.local", str(folder)],
            env={**env, "HOLDFAST_JOB": folder.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + START_SECONDS
        while not (folder / "exit").exists() and not _held(folder) and time.monotonic() < until:
            if child.poll() is not None:
                return False  # another process was first
            time.sleep(0.05)
        return True

    def state(self, name: str) -> State:
        folder = self.root / name
        if self._about(folder) is None:
            raise Misuse(f"{name}: no such job in {self.root}; `holdfast list backend=local` shows what there is")
        return self._read(folder)

    def jobs(self) -> list[State]:
        folders = [path.parent for path in self.root.glob("*/job.json")]
        return sorted((self._read(each) for each in folders), key=lambda found: found.started or "", reverse=True)

    def cancel(self, name: str) -> None:
        """SIGTERM to the command, which keeps its last checkpoint."""
        if self.state(name).code is None:
            pid = int((self.root / name / "pid").read_text())
            os.killpg(pid, signal.SIGTERM)

    def wait(self, name: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not (self.root / name / "exit").exists():
            time.sleep(0.1)

    def logs(self, name: str, since: str | None) -> Iterator[tuple[str, str, str]]:
        path = self.root / name / "log"
        if not path.exists():
            return
        *lines, _ = path.read_text(errors="replace").split("\n")
        for number in range(int(since) if since else 0, len(lines)):
            yield name, f"{number:012d}", lines[number]

    def _about(self, folder: Path) -> dict[str, Any] | None:
        try:
            return dict(json.loads((folder / "job.json").read_text()))
        except (OSError, ValueError):
            return None

    def _read(self, folder: Path) -> State:
        about = self._about(folder) or {}
        more = {"line": about.get("line", ""), "started": about.get("started")}
        try:
            exit_code = int((folder / "exit").read_text())
        except (OSError, ValueError):
            if _held(folder):
                return State(folder.name, state.RUNNING, "Running", **more)
            said = "its process is gone, and left no exit code; the same command continues"
            return state.ended(folder.name, state.LOST, "Lost", said, **more)
        return state.of_exit(folder.name, exit_code, **more)

    def _alone(self, job: Job) -> None:
        for found in self.jobs():
            about = self._about(self.root / found.name) or {}
            if found.code is None and found.name != job.name and about.get("digest") == job.digest:
                raise Misuse(
                    f"this very command is already running as {found.name}: follow it with `holdfast logs {found.name} "
                    f"backend=local`, or `holdfast cancel {found.name} backend=local` first"
                )


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether it is ours until the block ends."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _held(folder: Path) -> bool:
    if not (folder / "lock").exists():
        return False
    with _lock(folder) as free:
        return not free


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def run(folder: Path) -> int:
    """Run the job of ``folder`` in this process's own group; its exit code is written whole, or not at all."""
    with _lock(folder) as ours:
        if not ours:
            return 1
        (folder / "pid").write_text(str(os.getpid()))
        signal.signal(signal.SIGTERM, lambda *_: None)  # the command has it too: it is of the same group
        command = json.loads((folder / "job.json").read_text())["argv"]
        with (folder / "log").open("ab") as log:
            code = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        (folder / "exit.part").write_text(str(code if code >= 0 else 128 - code))
        (folder / "exit.part").rename(folder / "exit")
    return 0


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))

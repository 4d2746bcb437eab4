"""Jobs as processes of this machine, which outlive the one that submitted them.

A job is a folder: ``job.json`` (what it is), ``log``, ``pid``, ``exit`` (its exit code, once it has ended) and
``lock``, held by the processes that run it: so it is known to be alive, and never runs twice at once.  They inherit it
from whoever starts them: there is no moment at which a job has been begun and is not held.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k8s import state
from k8s.errors import Misuse
from k8s.job import Job, running, unknown
from k8s.settings import Settings
from k8s.state import State

HOLDFAST = (sys.executable, "-m", "pipelines.cli")


class Local:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.root = Path(settings.folder).expanduser()
        self.where = str(self.root)
        self._here = " backend=local" + (f" folder={settings.folder}" if settings.folder != Settings.folder else "")

    def start(self, job: Job) -> bool:
        """Whether it was started; else it runs, or has ended, already."""
        folder = self.root / job.name
        with self._turn():
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
            folder.mkdir(exist_ok=True)
            for name in ("exit", "log", "pid"):
                (folder / name).unlink(missing_ok=True)
            made = {"line": job.line, "argv": [*HOLDFAST, *job.command], "inputs": job.inputs, "digest": job.digest}
            _write(folder / "job.json", json.dumps({**made, "started": _now()}))
            self._spawn(folder)
        return True

    def _spawn(self, folder: Path) -> None:
        places = {"MLFLOW_TRACKING_URI": self.settings.tracking_uri, "HOLDFAST_STORAGE": self.settings.storage}
        env = {**os.environ, **{key: value for key, value in places.items() if value}, **self.settings.env}
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # at most the last moment of a run whose exit is there already
            subprocess.Popen(
                [sys.executable, "-m", "k8s.backends.local", str(folder), str(lock.fileno())],
                env={**env, "HOLDFAST_JOB": folder.name},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )

    def state(self, name: str) -> State:
        folder = self.root / name
        if self._about(folder) is None:
            raise unknown(name, str(self.root), self._here)
        with self._turn():
            return self._read(folder)

    def jobs(self) -> list[State]:
        if not self.root.is_dir():
            return []
        with self._turn():
            return self._all()

    def cancel(self, name: str) -> None:
        """SIGTERM to the command, which keeps its last checkpoint."""
        pid = self.root / name / "pid"
        while self.state(name).code is None:
            if pid.exists():  # so the command has begun, and takes the signal
                with suppress(ProcessLookupError):
                    os.killpg(int(pid.read_text()), signal.SIGTERM)
                return
            time.sleep(0.05)

    def wait(self, name: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not (self.root / name / "exit").exists():
            time.sleep(0.1)

    def logs(self, name: str, since: str | None) -> Iterator[tuple[str, str, str]]:
        path = self.root / name / "log"
        if not path.exists():
            return
        ended = self.state(name).code is not None
        *lines, rest = path.read_text(errors="replace").split("\n")
        if ended and rest:  # while it runs, a last line without its end is not whole
            lines.append(rest)
        for number in range(int(since) if since else 0, len(lines)):
            yield name, f"{number:012d}", lines[number]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time starts a job, or looks whether one is alive: to look is to take its lock for a moment."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / ".lock").open("a")  # no job can have that name
        except OSError as error:
            raise Misuse(f"folder={self.root} cannot be written ({error}); give another") from error
        with file, _locked(file.fileno()):
            yield

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

    def _all(self) -> list[State]:
        folders = [path.parent for path in self.root.glob("*/job.json")]
        return sorted((self._read(each) for each in folders), key=lambda found: found.started or "", reverse=True)

    def _alone(self, job: Job) -> None:
        for found in self._all():
            about = self._about(self.root / found.name) or {}
            if found.code is None and found.name != job.name and about.get("digest") == job.digest:
                raise running(found.name, self._here)


@contextmanager
def _locked(fd: int, flags: int = 0) -> Iterator[None]:
    """``LOCK_UN``, as a process that is just being forked may hold the file open for a moment longer."""
    fcntl.flock(fd, fcntl.LOCK_EX | flags)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _held(folder: Path) -> bool:
    try:
        with (folder / "lock").open("r+") as file, _locked(file.fileno(), fcntl.LOCK_NB):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def _write(path: Path, text: str) -> None:
    """Whole, or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def run(folder: Path, lock: int) -> None:
    """Run the job of ``folder`` in this process's own group; ``lock``: the file that it holds, locked already."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # the command has it too: it is of the same group
    argv = json.loads((folder / "job.json").read_text())["argv"]
    with (folder / "log").open("ab") as log:
        command = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock,)
        )
    _write(folder / "pid", str(os.getpid()))
    code = command.wait()
    _write(folder / "exit", str(code if code >= 0 else 128 - code))
    fcntl.flock(lock, fcntl.LOCK_UN)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))

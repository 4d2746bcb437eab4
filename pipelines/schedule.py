"""``holdfast schedule``: retrain again and again on one machine, by cron or by itself."""

import fcntl
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import compose
from pipelines.errors import Misuse
from pipelines.retrain import understood
from pipelines.retraining import doorbell
from pipelines.settings import Timetable

OURS = tuple(Timetable.__dataclass_fields__)
FIELDS, NAMED = 5, ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
GRACE = 60.0
"""Seconds that a retraining has to end, once it is told to."""


def schedule(lines: Sequence[str], options: Sequence[str], console: Console, recipes: Path | None) -> None:
    """``lines``: when, and what ``holdfast retrain`` is to be told; ``options``: its options.

    Errors: ``Misuse`` for a time that cannot be, for settings ``retrain`` does not know, and where it runs already.
    """
    ours = [line for line in lines if line.partition("=")[0] in OURS]
    theirs = [line for line in lines if line not in ours]
    config = compose.compose("schedule", [_quoted(line) for line in ours], recipes)
    _check(config)
    where = doorbell.check(config["listen"])
    job = understood(theirs, console, recipes)
    command = [sys.executable, "-m", "pipelines.cli", "retrain", *theirs, *options]
    if config["cron"]:
        print(crontab(config["cron"], command))
        return
    rung = threading.Event()
    with _alone(job.target, job.uri), doorbell.listening(where, job.target, rung) as port:
        if port:
            console.print(f"listening for MLflow's webhooks about {job.target} at port {port}")
        _loop(command, float(config["every"]), rung, console)


def _quoted(line: str) -> str:
    """A time is text, though Hydra takes its commas for several values."""
    key, _, value = line.partition("=")
    return f"{key}='{value}'" if key == "cron" and value != "null" and value[:1] not in ("'", '"') else line


def _check(config: dict[str, Any]) -> None:
    if (config["every"] is None) == (config["cron"] is None):
        raise Misuse(
            "say when: every=86400 runs it once a day until stopped, cron='17 3 * * *' prints a line for crontab"
        )
    if config["every"] is not None and not config["every"] > 0:
        raise Misuse(
            f"every={config['every']:g} must be above 0: the seconds from the beginning of one look to the next"
        )
    cron = config["cron"]
    if cron is not None and cron not in NAMED and len(str(cron).split()) != FIELDS:
        raise Misuse(
            f"cron={cron} is no time: give minute, hour, day, month and weekday, '17 3 * * *', or {', '.join(NAMED)}"
        )
    if cron is not None and config["listen"]:
        raise Misuse(f"listen={config['listen']} needs a process that stays: use every=, not cron=")


def crontab(when: str, command: Sequence[str]) -> str:
    """A line for ``crontab``, which takes ``%`` for a line's end, and begins in the home folder."""
    here = Path.cwd()
    line = f"cd {shlex.quote(str(here))} && {shlex.join(command)} >> retrain.log 2>&1"
    return f"{when} {line}".replace("%", r"\%")


@contextmanager
def _alone(name: str, uri: str) -> Iterator[None]:
    """One timetable a model and machine.  Retrainings started otherwise keep out of each other's way."""
    folder = Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"schedule-{compose.digest({'name': name, 'uri': uri})[:16]}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Misuse(f"register_as={name} is on a schedule on this machine already: end that one first") from error
        yield


def _loop(command: Sequence[str], every: float, rung: threading.Event, console: Console) -> None:
    """Each look in a process of its own: what it leaves in memory, or how it dies, does not end the timetable."""
    while True:
        began = time.monotonic()
        rung.clear()
        code = _run(command)
        rest = max(0.0, began + every - time.monotonic())
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + rest))
        console.print(f"retrain ended with code {code}; the next look is at {at}", soft_wrap=True)
        rung.wait(rest)


def _run(command: Sequence[str]) -> int:
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise

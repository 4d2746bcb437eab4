"""What a kill -9 costs ``holdfast evaluate``: part of ``evaluation_scaling.py``.

One evaluation runs to its end; another of the same is killed at random moments, keyed, one in each of as many equal
parts of the time its attacks take, and continued by the same command.  One process, one thread, ``journal.seconds`` as
it is by default.  In ``--quick`` the two run at once, each on a core of its own; else one after the other.

``work_lost_to_a_kill``: what was done and not yet written down when the signal was sent, over the seconds of the
whole.  Nothing tells of lost work but the clock: it is the time from the last whole file in ``journal/`` or ``middle/``
(or from the beginning of this go, if it is later) to the signal.  A go begins where the command, its model loaded, says
whose its folder is (``config.json``); the whole is from there to the last file in ``journal/`` of the evaluation that
is not killed.
``work_lost_by_the_clock``: a check that looks at no middle: the seconds that all goes of the killed evaluation took
beyond the whole, over the whole, a kill.  What reading a middle again and making the model ready takes is in it, and so
is whatever else slows the machine down.
``seconds_to_continue``: from the start of a command to where its go begins.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows
from benchmarks.science import add
from pipelines.evaluation import records
from pipelines.tracking import server

ALONE = ("workers=1", "device=cpu", "beyond=none", "doubts=false", "report.pictures=0")
"""One attack part and nothing after it that takes long."""
SEED, LATEST = 0, 0.85
"""``LATEST``: of the whole; the last kill is not after it, so that the evaluation is still there."""
UNCOUNTED = ("name", "distance")
"""Columns of the records that are no verdict."""
SAID = "said.txt"


@dataclass(frozen=True)
class Course:
    """An evaluation from its first command to its end.  Of each go, ``starts``: seconds until it began, and ``goes``:
    from then until it was killed, or wrote its last item down; of each kill, ``lost``: seconds of work.  ``records``:
    of each example its verdict; ``table``: its ``evaluation.json`` as far as it tells of verdicts."""

    starts: list[float]
    goes: list[float]
    lost: list[float]
    records: list[tuple[Any, ...]]
    table: list[Any]


def courses(settings: Sequence[str], kills: int, expected: float | None) -> tuple[Course, Course]:
    """One left alone, one killed.  ``expected``: about how many seconds the whole takes, to have both at once."""
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as folder, ThreadPoolExecutor(1) as pool:
        database = Path(folder) / "mlflow.db"
        server.check(f"sqlite:///{database}")  # made once, as it takes seconds
        alone = pool.submit(course, Path(folder) / "whole", database, settings)
        seconds = alone.result().goes[0] if expected is None else expected
        cut = course(Path(folder) / "cut", database, settings, moments(kills, seconds))
        return alone.result(), cut


def moments(kills: int, seconds: float) -> list[float]:
    """One in each of ``kills`` equal parts of the time up to ``LATEST``."""
    return [(i + u) / kills * LATEST * seconds for i, u in enumerate(np.random.default_rng(SEED).random(kills))]


def course(folder: Path, database: Path, settings: Sequence[str], kills: Sequence[float] = ()) -> Course:
    """``kills``: after how many seconds of work, done or lost; those after its end are left out.

    Errors: ``RuntimeError`` for a command that fails, and where none of ``kills`` came before the end.
    """
    folder.mkdir()
    shutil.copyfile(database, folder / "mlflow.db")
    place, starts, goes, lost = folder / "runs" / folder.name, list[float](), list[float](), list[float]()
    for life in (*(after - before for before, after in pairwise([0.0, *kills])), None):
        started = time.time()
        with _running(folder, settings) as process:
            began = _begun(place, started, process)
            starts.append(began - started)
            killed = _killed(process, None if life is None else began + life)
        if killed is None:
            break
        goes.append(killed - began)
        lost.append(max(0.0, killed - max(began, _last(place, "journal", "middle"))))
        print(f"killed {goes[-1]:.1f} s into a go, {lost[-1]:.2f} s after its last file", flush=True)
    if process.returncode:
        raise RuntimeError(_said(folder))
    if kills and not lost:
        raise RuntimeError("the evaluation ended before its first kill: give it more images")
    return Course(starts, [*goes, _last(place, "journal") - began], lost, _records(place), _table(place))


@contextmanager
def _running(folder: Path, settings: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command, in a process group of its own; nothing of it is left behind."""
    place = (f"tracking.uri=sqlite:///{folder / 'mlflow.db'}", f"storage={folder / 'runs'}", f"name={folder.name}")
    command = [sys.executable, "-m", "pipelines.cli", "evaluate", *ALONE, *place, *settings]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    with (folder / SAID).open("ab") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _begun(place: Path, started: float, process: subprocess.Popen[bytes]) -> float:
    """When its go began."""
    record = place / "config.json"
    while not record.exists() or record.stat().st_mtime < started:
        if process.poll() is not None:
            raise RuntimeError(_said(place.parents[1]))
        time.sleep(0.01)
    return record.stat().st_mtime


def _killed(process: subprocess.Popen[bytes], moment: float | None) -> float | None:
    """When it was killed; None if it ended before ``moment``."""
    try:
        process.wait(None if moment is None else max(0.0, moment - time.time()))
    except subprocess.TimeoutExpired:
        killed = time.time()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return killed
    return None


def _said(folder: Path) -> str:
    return (folder / SAID).read_text()[-2000:]


def _last(place: Path, *folders: str) -> float:
    """When the last file was put there, whole; 0 if there is none."""
    files = [file for name in folders for file in (place / name).rglob("*") if file.suffix in (".json", ".safetensors")]
    return max((file.stat().st_mtime for file in files), default=0.0)


def _records(place: Path) -> list[tuple[Any, ...]]:
    columns = records.read(place).columns
    return list(zip(*(values for name, values in columns.items() if name not in UNCOUNTED), strict=True))


def _table(place: Path) -> list[Any]:
    found = json.loads((place / "evaluation.json").read_text())
    return [
        found["clean"],
        *([threat["robust"], threat["per_class"], [attack["left"] for attack in threat["attacks"]]]
          for threat in found["threats"]),
    ]  # fmt: skip


def add_rows(rows: Rows, whole: Course, cut: Course, journal_seconds: float) -> int:
    """How many examples have another verdict after the kills."""
    seconds, kills = whole.goes[0], len(cut.lost)
    note = f"{statistics.mean(cut.lost):.2f} s of {seconds:.0f} s, journal.seconds={journal_seconds:g}"
    add(rows, "work_lost_to_a_kill", [lost / seconds for lost in cut.lost], "<= 0.02", note)
    by_clock = (sum(cut.goes) / seconds - 1) / kills
    rows.add("work_lost_by_the_clock", value=by_clock, n=kills, note="with all that a new go takes")
    add(rows, "seconds_to_continue", cut.starts[1:], note="from the command to its first item")
    differing = sum(one != other for one, other in zip(whole.records, cut.records, strict=True))
    return differing or int(whole.table != cut.table)

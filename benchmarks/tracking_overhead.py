"""What logging five metrics a step costs the training, against a real ``mlflow server`` over HTTP.

``milliseconds_per_logged_step``: mean time inside ``Journal.log``, waits for the interpreter's lock included.
``milliseconds_added_per_step``: how much longer whole steps (about 5 ms of matrix products) take with the journal at
work than without, in alternating blocks: the delivering thread's own work is in it.
``milliseconds_per_logged_step_server_stopped``: as the first, with the server stopped (SIGSTOP) all the while.
"""

import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

METRICS = ("loss", "clean_accuracy", "gradient_norm", "lr", "seconds")


@contextmanager
def server() -> Iterator[tuple[str, Callable[[int], None]]]:
    """``(uri, signal)`` of a tracking server of its own, on SQLite in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, start_new_session=True, cwd=folder, **quiet)  # type: ignore[call-overload]
        try:
            _wait(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}", lambda number: os.killpg(process.pid, number)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _wait(uri: str, process: "subprocess.Popen[bytes]", seconds: float = 120) -> None:
    """Until it answers a question that needs its database, which a new server makes first."""
    url = f"{uri}/api/2.0/mlflow/experiments/get?experiment_id=0"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=30):
            return
        time.sleep(0.2)
    raise RuntimeError("mlflow server did not start")


def rows(quick: bool = False) -> list[dict[str, Any]]:
    """One row a measure: what, value, n (blocks), spread (standard deviation), interval (95 %, of the mean)."""
    from pipelines.tracking import runs
    from pipelines.tracking.journal import Journal

    blocks, steps = (4, 250) if quick else (20, 500)
    with server() as (uri, send), tempfile.TemporaryDirectory() as spool:
        run_id = runs.open_run(uri, "benchmark", "overhead", "overhead", {})
        journal = Journal(uri, run_id, spool, timeout=5.0)
        logged, added, away = [], [], []
        for block in range(blocks):
            alone, _ = _block(None, 0, steps)
            with_log, inside = _block(journal, block * steps, steps)
            logged.append(inside)
            added.append(with_log - alone)
        left = journal.flush(60)
        send(signal.SIGSTOP)
        for block in range(blocks, blocks + blocks // 2):
            away.append(_block(journal, block * steps, steps)[1])
        send(signal.SIGCONT)
        left += journal.close(120)
        _verify(uri, run_id, (blocks + blocks // 2) * steps, left)
    return [
        _row("milliseconds_per_logged_step", logged),
        _row("milliseconds_added_per_step", added),
        _row("milliseconds_per_logged_step_server_stopped", away),
    ]


def _block(journal: Any, first: int, steps: int) -> tuple[float, float]:
    """Mean milliseconds of a step, and of that inside ``log``."""
    import torch

    a = torch.rand(300, 300)
    inside = 0.0
    start = time.perf_counter()
    for step in range(first, first + steps):
        until = time.perf_counter() + 0.004
        while time.perf_counter() < until:
            a @ a
        if journal is not None:
            before = time.perf_counter()
            journal.log(step, dict.fromkeys(METRICS, step * 0.1))
            inside += time.perf_counter() - before
    return (time.perf_counter() - start) / steps * 1e3, inside / steps * 1e3


def _verify(uri: str, run_id: str, steps: int, left: int) -> None:
    """Speed bought by losing points would be no speed."""
    from pipelines.tracking import server as tracking_server

    for name in METRICS:
        found = [m.step for m in tracking_server.client(uri).get_metric_history(run_id, name)]
        if left or sorted(found) != list(range(steps)):
            raise RuntimeError(f"{name}: {len(found)} of {steps} points arrived, {left} left")


def _row(what: str, values: list[float]) -> dict[str, Any]:
    mean, spread = statistics.mean(values), statistics.stdev(values)
    half = 1.96 * spread / math.sqrt(len(values))
    return {"what": what, "value": mean, "n": len(values), "spread": spread, "interval": [mean - half, mean + half]}


if __name__ == "__main__":
    for row in rows(quick="--quick" in sys.argv):
        low, high = row["interval"]
        print(f"{row['what']:<46} {row['value']:8.4f} ms  [{low:.4f}, {high:.4f}]  n={row['n']}")

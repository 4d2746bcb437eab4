"""Promotions at once: does the registry ever lose one?  python benchmarks/registry.py [--quick] [--json FILE]

Two processes wait for one another and then promote different versions of one model, each in place of the same champion.
``races_lost_updates``: pairs after which not exactly one had won, or the champion was not the winner's, or ``previous``
not the old champion, or the loser was told nothing.  On SQLite opened by both, and on a tracking server over HTTP, on
SQLite or, with ``--database postgresql+psycopg://...``, on that database.  ``seconds_a_move``: of the winner, from its
first request to its last.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser

WAIT = 120


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--database", help="of the tracking server, in place of SQLite")
    args = arguments.parse_args()
    pairs = 10 if args.quick else 60
    rows = Rows("Promotions at once")
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as folder:
        sqlite = f"sqlite:///{folder}/mlflow.db"
        found = {"SQLite, opened by both": race(sqlite, pairs)}
        database = args.database or sqlite
        with serving(folder, database) as uri:
            found[f"a server on {database.partition(':')[0].partition('+')[0]}"] = race(uri, pairs)
    lost = sum(len(seen) for seen, _ in found.values())
    where = " and ".join(found)
    rows.add("races_lost_updates", value=lost, n=len(found) * pairs, goal="0", note=where)
    for place, (_, seconds) in found.items():
        rows.add("seconds_a_move", seconds, note=place)
    rows.close(args.json)


def race(uri: str, pairs: int) -> tuple[list[str], list[float]]:
    """``(what went wrong, seconds of each winner)``."""
    from pipelines.tracking import versions

    names = [f"race-{uuid.uuid4().hex[:8]}" for _ in range(pairs)]
    for name in names:
        _model(uri, name)
    context = multiprocessing.get_context("spawn")
    barrier, said = context.Barrier(2), context.Queue()
    both = [context.Process(target=mover, args=(uri, names, after, barrier, said)) for after in (2, 3)]
    for process in both:
        process.start()
    ends: dict[str, dict[int, tuple[str, float]]] = {name: {} for name in names}
    for _ in range(2 * pairs):
        name, after, text, seconds = said.get(timeout=WAIT)
        ends[name][after] = (text, seconds)
    for process in both:
        process.join(timeout=WAIT)
    wrong, seconds = [], []
    for name in names:
        winners = [after for after, (text, _) in ends[name].items() if text == ""]
        told = [text for text, _ in ends[name].values() if f"is version {(winners or [0])[0]} now, moved by" in text]
        there = versions.aliases(uri, name)
        if len(winners) == 1 and len(told) == 1 and there == {"champion": winners[0], "previous": 1}:
            seconds.append(ends[name][winners[0]][1])
        else:
            wrong.append(f"{name}: {ends[name]}, {there}")
    print("\n".join(wrong), end="", flush=True)
    return wrong, seconds


def _model(uri: str, name: str) -> None:
    from pipelines.tracking import export, server, versions

    client = server.client(uri)
    client.create_registered_model(name)
    with export.quiet():
        for _ in range(3):
            client.create_model_version(name, f"s3://nowhere/{name}")
    versions.point(uri, name, versions.CHAMPION, 1)


def mover(uri: str, names: list[str], after: int, barrier: Barrier, said: Any) -> None:
    """Promote ``after`` in place of version 1 of each name, at the same moment as the other process."""
    from pipelines.errors import Refused
    from pipelines.promotion import move
    from pipelines.promotion.move import Plan

    for name in names:
        plan = Plan(name, "promote", 1, after, 1)
        barrier.wait(timeout=WAIT)
        began, text = time.monotonic(), ""
        try:
            move.move(uri, plan, {}, "", {})
        except Refused as error:
            text = str(error)
        said.put((name, after, text, time.monotonic() - began))


@contextmanager
def serving(folder: str, database: str) -> Iterator[str]:
    from pipelines.tracking import server

    if database.startswith("sqlite"):
        server.check(database)
    port = 5000 + os.getpid() % 1000
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", database, "--artifacts-destination", f"{folder}/artifacts"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(WAIT):
            with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):
                break
            time.sleep(1)
        yield uri
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


if __name__ == "__main__":
    main()

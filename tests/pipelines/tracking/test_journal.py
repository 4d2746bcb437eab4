import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from unittest import mock

import pytest

from pipelines.tracking import runs, server
from pipelines.tracking.journal import Journal

ROOT = Path(__file__).parents[3]
NAMES = ("loss", "clean_accuracy", "grad_norm", "lr", "step_seconds")


@pytest.fixture
def run_id(mlflow_server, request) -> str:
    return runs.open_run(mlflow_server.uri, "journal", f"{request.node.name}-{time.time_ns()}", "a run", {})


def metrics(step: int) -> dict[str, float]:
    return {name: step + i / 10 for i, name in enumerate(NAMES)}


def steps(uri: str, run_id: str, name: str) -> list[int]:
    return sorted(m.step for m in server.client(uri).get_metric_history(run_id, name))


def assert_once(uri: str, run_id: str, count: int) -> None:
    for name in NAMES:
        assert steps(uri, run_id, name) == list(range(count)), name


def test_every_value_arrives_once_with_its_own_time(mlflow_server, run_id, tmp_path):
    before = time.time()
    journal = Journal(mlflow_server.uri, run_id, tmp_path, poll=0.05, system_seconds=None)
    for step in range(1200):
        journal.log(step, metrics(step))
    after = time.time()
    journal.log(0, {"odd": math.nan})
    journal.log(1, {"odd": math.inf})
    journal.log(2, {"odd": -math.inf, "name (with) #signs": 1.0})
    assert journal.close(20) == 0

    assert_once(mlflow_server.uri, run_id, 1200)
    history = server.client(mlflow_server.uri).get_metric_history(run_id, "loss")
    assert all(before - 0.01 <= m.timestamp / 1000 <= after for m in history)
    assert all(m.value == m.step for m in history)
    odd = [m.value for m in server.client(mlflow_server.uri).get_metric_history(run_id, "odd")]
    assert math.isnan(odd[0])
    assert odd[1] > 1e308 > -1e308 > odd[2]  # a SQL store keeps infinity as the largest double
    assert steps(mlflow_server.uri, run_id, "name _with_ _signs") == [2]


def test_a_stopped_server_neither_stops_nor_slows_nor_loses(mlflow_server, run_id, tmp_path, caplog):
    told: list[str] = []
    quick = {"poll": 0.05, "timeout": 1.0, "system_seconds": None}
    journal = Journal(mlflow_server.uri, run_id, tmp_path, **quick, notify=told.append)
    try:
        for step in range(300):
            if step == 100:
                assert journal.flush(10) == 0
                mlflow_server.signal(signal.SIGSTOP)
            journal.log(step, metrics(step))
            time.sleep(0.01)
        assert len(journal.pending()) == 200 * len(NAMES)
        assert journal.flush(0.3) == 200 * len(NAMES)
    finally:
        mlflow_server.signal(signal.SIGCONT)
    assert journal.close(20) == 0
    assert_once(mlflow_server.uri, run_id, 300)
    assert "tracking is away" in caplog.text
    assert "tracking is back" in caplog.text
    words = [text.split()[2] for text in told]  # a slow answer is one more absence
    assert words == ["away", "back"] * (len(told) // 2) != []


def test_a_point_logged_while_the_spool_is_written_is_on_disk_before_it_is_sent(mlflow_server, run_id, tmp_path):
    journal = Journal(mlflow_server.uri, run_id, tmp_path, poll=60, system_seconds=None)
    spool, sent, more = journal._spool, [], iter(range(1, 5))
    append, read = spool.append, spool.read

    def append_slowly(points):
        append(points)
        for step in islice(more, 1):
            journal.log(step, {"loss": 0.0})

    class Server:
        def last_steps(self):
            return {}

        def send(self, batch):
            sent.extend(p.step for p in batch)
            assert set(batch) <= set(read())

    spool.append, journal._store = append_slowly, Server()
    journal.log(0, {"loss": 0.0})
    assert journal.close(10) == 0
    assert sent == list(range(5))


def test_a_killed_server_comes_back_whoever_cannot_be_told(mlflow_server, run_id, tmp_path):
    told = mock.Mock(side_effect=RuntimeError("the board is gone"))
    journal = Journal(mlflow_server.uri, run_id, tmp_path, poll=0.05, timeout=2.0, system_seconds=None, notify=told)
    try:
        for step in range(100):
            journal.log(step, metrics(step))
            if step == 50:
                time.sleep(0.2)
                mlflow_server.kill()
        assert journal.flush(1.5) > 0
    finally:
        mlflow_server.start()
    for step in range(100, 120):
        journal.log(step, metrics(step))
    assert journal.close(30) == 0
    assert_once(mlflow_server.uri, run_id, 120)
    assert told.call_count >= 2


WORKER = """
    import json, os, signal, sys
    from pipelines.tracking.journal import Journal
    uri, run_id, spool, checkpoint, kill_at, away_at = sys.argv[1:]
    start, pending = 0, []
    if os.path.exists(checkpoint):
        start, pending = json.load(open(checkpoint))
    journal = Journal(uri, run_id, spool, pending, poll=0.02, timeout=1.0, system_seconds=None)
    for step in range(start, 200):
        if step %% 40 == 0:
            json.dump([step, journal.pending()], open(checkpoint, "w"))
        journal.log(step, {name: step + i / 10 for i, name in enumerate(%r)})
        if step == int(away_at):
            journal.flush(10)
            os.killpg(int(os.environ["SERVER"]), signal.SIGSTOP)
        if step == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        if step %% 10 == 0:
            import time; time.sleep(0.05)
    sys.exit(journal.close(20))
"""


@pytest.mark.parametrize("own_spool", [True, False], ids=["same_machine", "other_machine"])
def test_a_killed_process_continues_from_its_checkpoint(mlflow_server, run_id, tmp_path, own_spool):
    """Killed at step 150 with the server away since 100: the checkpoint is of step 120, points 101 to 119 pending."""
    code = textwrap.dedent(WORKER) % (NAMES,)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SERVER": str(mlflow_server.process.pid)}

    def train(spool: str, kill_at: int, away_at: int) -> int:
        arguments = [mlflow_server.uri, run_id, tmp_path / spool, tmp_path / "checkpoint.json", kill_at, away_at]
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, env=environment, timeout=60).returncode

    try:
        assert train("first", kill_at=150, away_at=100) == -signal.SIGKILL
        saved_step, saved = json.loads((tmp_path / "checkpoint.json").read_text())
        assert saved_step == 120
        assert Counter(key for key, *_ in saved) == dict.fromkeys(NAMES, 19)
    finally:
        mlflow_server.signal(signal.SIGCONT)
    assert train("first" if own_spool else "second", kill_at=-1, away_at=-1) == 0
    assert_once(mlflow_server.uri, run_id, 200)


def test_a_replay_on_a_live_server_is_dropped(mlflow_server, run_id, tmp_path):
    first = Journal(mlflow_server.uri, run_id, tmp_path / "a", poll=0.05, system_seconds=None)
    for step in range(50):
        first.log(step, metrics(step))
    assert first.close(20) == 0
    second = Journal(mlflow_server.uri, run_id, tmp_path / "b", poll=0.05, system_seconds=None)
    for step in range(30, 80):
        second.log(step, metrics(step))
    assert second.close(20) == 0
    assert_once(mlflow_server.uri, run_id, 80)


def test_what_is_left_at_the_end_is_delivered_by_the_next_journal(tracking_uri, tmp_path):
    run_id = runs.open_run(tracking_uri, "journal", "left", "a run", {})
    nobody = "http://127.0.0.1:9"
    journal = Journal(nobody, run_id, tmp_path / "spool", poll=0.05, system_seconds=None)
    for step in range(20):
        journal.log(step, metrics(step))
    assert journal.close(0.5) == 20 * len(NAMES)
    assert journal.close(0.1) == 20 * len(NAMES)
    assert Journal(tracking_uri, run_id, tmp_path / "spool", system_seconds=None).close(20) == 0
    assert_once(tracking_uri, run_id, 20)


def test_a_spool_cut_off_in_a_line_is_read_to_there(tracking_uri, tmp_path):
    run_id = runs.open_run(tracking_uri, "journal", "cut", "a run", {})
    (tmp_path / f"{run_id}.jsonl").write_text('["loss", 1.0, 1700000000000, 0]\n["loss", NaN, 1700000001000, 1]\n["lo')
    journal = Journal(tracking_uri, run_id, tmp_path, system_seconds=None)
    assert [p.step for p in journal.pending()] == [0, 1]
    assert journal.close(20) == 0
    assert steps(tracking_uri, run_id, "loss") == [0, 1]


def test_the_folder_of_the_spool_is_this_users_alone(tracking_uri, tmp_path):
    journal = Journal(tracking_uri, "0" * 32, tmp_path / "spool", system_seconds=None)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    journal.close(0.0)


def test_logging_never_raises(tracking_uri, tmp_path, caplog):
    (tmp_path / "file").touch()
    journal = Journal(tracking_uri, "0" * 32, tmp_path / "file", system_seconds=None)
    journal.log(0, {"loss": "three", "lr": 0.1})  # type: ignore[dict-item]
    journal.log("zero", {"loss": 1.0})  # type: ignore[arg-type]
    assert journal.rejected == 2
    assert [p.key for p in journal.pending()] == ["lr"]
    assert journal.close(0.5) == 1  # there is no such run
    assert "not taken" in caplog.text
    assert "kept in memory only" in caplog.text


def test_points_of_a_deleted_run_are_given_up_with_a_warning(tracking_uri, tmp_path, caplog):
    run_id = runs.open_run(tracking_uri, "journal", "deleted", "a run", {})
    server.client(tracking_uri).delete_run(run_id)
    journal = Journal(tracking_uri, run_id, tmp_path / "spool", system_seconds=None)
    with caplog.at_level(logging.WARNING):
        journal.log(0, metrics(0))
        assert journal.close(20) == 0
    assert journal.rejected == len(NAMES)
    assert "deleted" in caplog.text


def test_the_machine_is_watched_under_mlflows_names(tracking_uri, tmp_path):
    run_id = runs.open_run(tracking_uri, "journal", "system", "a run", {})
    journal = Journal(tracking_uri, run_id, tmp_path / "spool", poll=0.1, system_seconds=1.0)
    time.sleep(2.5)
    assert journal.close(20) == 0
    run = server.client(tracking_uri).get_run(run_id)
    assert 0 <= run.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert 0 < run.data.metrics["system/system_memory_usage_percentage"] <= 100
    theirs = _mlflows_names()
    assert theirs <= set(run.data.metrics)


def _mlflows_names() -> set[str]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    def names() -> Iterator[str]:
        for monitor in (CPUMonitor(), DiskMonitor(), NetworkMonitor()):
            monitor.collect_metrics()
            yield from monitor.aggregate_metrics()

    return {f"system/{name}" for name in names()}

"""The benchmark of shared and lost work adds up, and the whole of it runs: on real workers, with a real kill -9."""

import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

pytest.importorskip("ray")

from benchmarks import evaluation_kills, evaluation_scaling
from benchmarks.evaluation_kills import Course
from benchmarks.evaluation_scaling import Arm
from benchmarks.report import Rows
from pipelines import cluster
from trainers.attacks.apgd import APGD
from trainers.attacks.cascade import Cascade
from trainers.attacks.square import Square
from trainers.threat import Linf

WHOLE = Course([5.0], [50.0], [], [(1, True), (2, False), (3, True)], ["table"])
CUT = Course([5.0, 6.0, 8.0], [20.0, 20.0, 13.0], [0.5, 1.5], WHOLE.records, WHOLE.table)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray with room for two workers, whatever the machine has; one that runs already is left as it is."""
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    started = not ray.is_initialized()
    if started:
        os.environ.update(RAY_AUTH_MODE="disabled")
        cluster.quiet()
        cluster.quiet(cluster.LOCAL)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    if started:
        ray.shutdown()


def by_name(rows: Rows) -> dict[str, dict]:
    return {row["what"]: row for row in rows.rows}


def test_a_ratio_is_of_a_pair_and_verdicts_are_compared_over_all_arms():
    rows = Rows("")
    one, two = Arm(40.0, 40.0, 10.0, ("", "square", "")), Arm(20.0, 44.0, 10.0, ("", "square", ""))
    slow = Arm(80.0, 80.0, 10.0, one.verdicts), Arm(48.0, 80.0, 10.0, ("", "", ""))
    assert evaluation_scaling.add_scaling(rows, [(one, two), slow], 1000) == 1
    found = by_name(rows)
    assert found["two_workers_over_one"]["value"] == pytest.approx((0.5 + 0.6) / 2)
    assert found["two_workers_over_one"]["n"] == 2
    assert found["work_of_two_over_one"]["value"] == pytest.approx((1.1 + 1.0) / 2)
    assert evaluation_scaling.add_scaling(Rows(""), [(one, two)], 1000) == 0


def test_the_time_of_more_images_and_queries_is_foreseen():
    one = Arm(seconds=30.0, work=29.0, square=2.0, verdicts=("",) * 10)
    assert evaluation_scaling.expected(one, n=20, queries=1000) == pytest.approx(2 * (30 + 4 * 2))
    assert evaluation_scaling.expected(one, n=10, queries=evaluation_scaling.QUERIES) == 30


def test_what_kills_lose_is_a_share_of_the_whole():
    rows = Rows("")
    assert evaluation_kills.add_rows(rows, WHOLE, CUT, 2.0) == 0
    found = by_name(rows)
    lost = found["work_lost_to_a_kill"]
    assert (lost["value"], lost["n"], lost["goal"]) == (pytest.approx(0.02), 2, "<= 0.02")
    assert lost["spread"] == pytest.approx(0.02 / 2**0.5)
    assert "1.00 s of 50 s, journal.seconds=2" in lost["note"]
    assert found["work_lost_by_the_clock"]["value"] == pytest.approx((53 / 50 - 1) / 2)
    assert found["seconds_to_continue"]["value"] == pytest.approx(7.0)


def test_a_verdict_that_a_kill_changed_is_seen():
    other = [(1, True), (2, True), (3, True)]
    assert evaluation_kills.add_rows(Rows(""), WHOLE, replace(CUT, records=other), 2.0) == 1
    assert evaluation_kills.add_rows(Rows(""), WHOLE, replace(CUT, table=["another"]), 2.0) == 1


def test_kills_are_spread_over_the_whole_and_the_same_every_time():
    moments = evaluation_kills.moments(5, 100.0)
    assert moments == evaluation_kills.moments(5, 100.0)
    part = 100.0 * evaluation_kills.LATEST / 5
    assert [int(moment // part) for moment in moments] == [0, 1, 2, 3, 4]
    assert len({round(moment % part, 6) for moment in moments}) == 5


def short(threat: Linf, version: str, classes: int) -> Cascade:
    return Cascade([APGD(threat, steps=5), Square(threat, queries=5)])


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("two_processors")
def test_all_of_it_runs(tmp_path, monkeypatch, capsys):
    """With short attacks, where the real ones are AutoAttack's, and a kill in the first second of what is killed."""
    monkeypatch.setattr(evaluation_scaling, "autoattack", short)
    monkeypatch.setattr(evaluation_scaling, "expected", lambda *_: 1.0)
    path = tmp_path / "rows.json"
    attack = ["attack=pgd", "attack._target_=trainers.attacks.apgd.APGD", "attack.steps=150", "attack.restarts=4"]
    attack += ["threats.Linf=0.01", "journal.seconds=0.2"]
    small = ["--quick", "--n=16", "--kills=1", "--queries=30", "--epochs=1", f"--cache={tmp_path}"]
    evaluation_scaling.main([*small, *(f"--set={setting}" for setting in attack), f"--json={path}"])
    rows = {row["what"]: row for row in json.loads(path.read_text())}
    assert {what for what, row in rows.items() if row["goal"]} == {
        "two_workers_over_one",
        "work_lost_to_a_kill",
        "verdicts_differing",
    }
    for row in rows.values():
        assert {"what", "value", "n", "spread", "hardware", "versions", "date"} <= row.keys()
        assert math.isfinite(row["value"])
    assert rows["two_workers_over_one"]["value"] > 0
    assert 0 <= rows["work_lost_to_a_kill"]["value"] < 1
    assert rows["work_lost_to_a_kill"]["n"] == 1
    assert rows["verdicts_differing"]["value"] == 0
    assert rows["seconds_to_continue"]["value"] > 0
    out = capsys.readouterr().out
    assert "pair 0: 2 on Ray took" in out
    assert "killed " in out

"""The benchmark of the gate's errors asks the gate itself, counts what it says, and the whole of it runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import gate
from benchmarks.report import Rows
from trainers.evaluation.intervals import mcnemar_gained, paired_score, wilson

GOALS = {"wrong_promotions": "<= 0.055", "missed_better": "<= 0.2"}


@pytest.mark.parametrize(
    ("gained", "lost", "n"), [(0, 0, 540), (60, 48, 540), (66, 42, 540), (90, 110, 1000), (0, 50, 540), (540, 0, 540)]
)
@pytest.mark.parametrize(("rule", "margin"), [("better", 0.0), ("not_worse", gate.MARGIN)])
def test_a_pair_passes_where_the_test_says_so(rule, margin, gained, lost, n):
    candidate, champion = gate.evidence("a/2", n), gate.evidence("a/1", n)
    p = mcnemar_gained(gained, lost) if rule == "better" else paired_score(gained, lost, n, margin)
    expected = p <= gate.LEVEL
    assert gate.passes(candidate, champion, rule, gained, lost) == expected
    assert not gate.passes(candidate, champion, "better", 0, 0)  # nothing of an earlier pair is left


def test_the_worst_row_stands_first():
    rows = Rows("")
    gate.add_wrong(rows, {case: 4 + (k == 2) for k, case in enumerate(gate.EDGE)}, pairs=100)
    worst, *each = rows.rows
    assert (worst["what"], worst["value"], worst["n"]) == ("wrong_promotions", 0.05, 100)
    assert worst["interval"] == list(wilson(5, 100))
    assert [row["value"] for row in each] == [0.04, 0.04, 0.05, 0.04, 0.04, 0.04]
    assert len({row["what"] for row in each}) == 6


def test_the_same_seed_draws_the_same_pairs():
    case = gate.Case("better", 0.03, 540)
    assert gate.promoted(case, 100, seed=3) == gate.promoted(case, 100, seed=3)
    assert gate.promoted(case, 100, seed=3) > gate.promoted(gate.Case("better", -0.03, 540), 100, seed=3)


def test_all_of_it_runs(tmp_path, capsys):
    path = tmp_path / "rows.json"
    gate.main(["--quick", "--pairs=200", f"--json={path}"])
    rows = {row["what"]: row for row in json.loads(path.read_text())}
    assert {what: row["goal"] for what, row in rows.items() if row["goal"]} == GOALS
    assert len(rows) == 2 + len(gate.EDGE)
    for row in rows.values():
        assert {"what", "value", "n", "spread", "interval", "hardware", "versions", "date"} <= row.keys()
        low, high = row["interval"]
        assert 0 <= low <= row["value"] <= high <= 1
        assert row["n"] == 200
    for what in set(rows) - {"missed_better"}:
        assert 0 < rows[what]["value"] < 0.12
    assert 0.02 < rows["missed_better"]["value"] < 0.2
    assert "How to read it" in capsys.readouterr().out

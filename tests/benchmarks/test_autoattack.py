"""The benchmark of AutoAttack counts what it says it counts, and the whole of it runs."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import autoattack
from benchmarks.report import Rows

GOALS = {
    "seconds_over_reference_same_flags",
    "seconds_over_reference_fast",
    "flags_differing_in_reference_mode",
    "robust_accuracy_difference_fast",
    "fast_flags_differing_between_batches",
}


pytestmark = pytest.mark.usefixtures("one_thread")


def turn(theirs: str, reference: str, fast: str, other_batch: str | None = None) -> autoattack.Turn:
    """Flags as text: ``1`` is robust."""
    flags = {"theirs": theirs, "reference": reference, "fast": fast}
    tensors = {arm: torch.tensor([mark == "1" for mark in marks]) for arm, marks in flags.items()}
    seconds = {"theirs": 10.0, "reference": 7.0, "fast": 5.0}
    other = None if other_batch is None else torch.tensor([mark == "1" for mark in other_batch])
    return autoattack.Turn(tensors, seconds, other)


def test_verdicts_are_counted_over_all_networks():
    rows = Rows("")
    autoattack.add(rows, [turn("1100", "1010", "1100", "0101"), turn("110000", "110000", "111100")])
    found = {row["what"]: row for row in rows.rows}
    assert set(found) >= GOALS
    assert found["flags_differing_in_reference_mode"]["value"] == 2  # one each way
    assert found["flags_differing_in_reference_mode"]["n"] == 10
    assert found["fast_flags_differing_between_batches"]["value"] == 2
    assert found["fast_flags_differing_between_batches"]["n"] == 4
    difference = found["robust_accuracy_difference_fast"]
    assert difference["value"] == pytest.approx(0.2)
    assert difference["interval"][0] < 0.2 < difference["interval"][1]
    assert found["seconds_over_reference_fast"]["value"] == pytest.approx(0.5)
    assert found["robust_accuracy_reference"]["value"] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_all_of_it_runs(tmp_path, capsys):
    pytest.importorskip("pyautoattack", reason="the authors' code is not installed")
    path = tmp_path / "rows.json"
    small = ["--queries=50", "--steps=20", "--n=16", "--nets=1", "--epochs=1", "--device=cpu", f"--cache={tmp_path}"]
    autoattack.main([*small, f"--json={path}"])
    rows = {row["what"]: row for row in json.loads(path.read_text())}
    assert {what for what, row in rows.items() if row["goal"]} == GOALS
    for row in rows.values():
        assert {"what", "value", "n", "spread", "hardware", "versions", "date"} <= row.keys()
        assert math.isfinite(row["value"])
    assert rows["flags_differing_in_reference_mode"]["value"] == 0
    assert rows["flags_differing_in_reference_mode"]["n"] == 16
    assert 0 <= rows["robust_accuracy_reference"]["value"] <= 1
    assert rows["seconds_over_reference_fast"]["value"] > 0
    assert len(list(tmp_path.glob("autoattack-*.safetensors"))) == 1
    assert "network 0: theirs" in capsys.readouterr().out

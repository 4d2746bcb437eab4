"""The benchmark of training cost runs, and writes the rows that others read."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import training_cost

KEYS = {"what", "value", "n", "spread", "hardware", "versions"}


def test_all_of_it_runs(monkeypatch, tmp_path, capsys):
    """With one round, where the real one has 24."""
    monkeypatch.setattr(
        training_cost, "measure", lambda batch, rounds, repeats, real=training_cost.measure: real(batch, 1, 1)
    )
    monkeypatch.setattr(
        sys, "argv", ["training_cost.py", "--quick", "--batch=2", "--device=cpu", f"--json={tmp_path}/out.json"]
    )
    threads = torch.get_num_threads()
    training_cost.main()
    torch.set_num_threads(threads)
    rows = {row["what"]: row for row in json.loads((tmp_path / "out.json").read_text())}
    assert {"gradnorm_over_peer_pgd3", "pgd3_over_peer_pgd3", "standard_seconds", "gradnorm_standard_steps"} <= set(
        rows
    )
    assert all(set(row) >= KEYS for row in rows.values())
    assert 1.9 < rows["gradnorm_standard_steps"]["value"] < 2.2
    assert "gradnorm_over_peer_pgd3" in capsys.readouterr().out

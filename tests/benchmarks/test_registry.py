"""The benchmark of promotions at once counts what went wrong, and nothing else."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import registry


def test_races_without_loss_and_one_with(tmp_path, monkeypatch, capfd):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    wrong, seconds = registry.race(uri, 2)
    assert wrong == []
    assert len(seconds) == 2
    assert all(second > 0 for second in seconds)
    monkeypatch.setattr(registry, "mover", _both_win)
    wrong, seconds = registry.race(uri, 1)
    assert len(wrong) == 1
    assert seconds == []
    assert "champion" in capfd.readouterr().out


def _both_win(uri, names, after, barrier, said) -> None:
    """A mover that does not look whether the champion is still the one it knew."""
    from pipelines.tracking import versions

    for name in names:
        versions.point(uri, name, "champion", after)
        said.put((name, after, "", 0.1))

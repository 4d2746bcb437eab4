"""Which of Ray Train's own actors start."""

import pytest

from pipelines import trainer


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("dashboard", "idle"),
    [(False, {"DatasetsCallback", "PlacementGroupCleanerCallback"}), (True, {"DatasetsCallback"})],
)
def test_only_actors_with_nothing_to_do_are_left_out(dashboard, idle, monkeypatch):
    """By names that Ray still has."""
    from ray.train.torch import TorchTrainer

    def callbacks(kind):
        return {type(callback).__name__ for callback in kind(print)._create_default_callbacks()}

    assert not trainer._dashboard()
    monkeypatch.setattr(trainer, "_dashboard", lambda: dashboard)
    assert callbacks(TorchTrainer) - callbacks(trainer.Trainer) == idle

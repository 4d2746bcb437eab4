"""Which files run first: one process takes a file, so a long one begun last would keep the other waiting.

Those that train on Ray and those that only compute take turns, so that not all processors are asked for at once.
"""

from pathlib import Path

import pytest

LONGEST = (
    "pipelines/test_docs.py",
    "trainers/attacks/test_reference.py",
    "infra/test_terraform.py",
    "pipelines/test_tune.py",
    "k8s/test_lives.py",
    "pipelines/test_clusters.py",
    "pipelines/test_circle.py",
    "k8s/test_guide.py",
    "infra/test_mlflow_server.py",
    "pipelines/test_evaluate.py",
    "k8s/test_rayjobs.py",
    "pipelines/test_kills.py",
    "pipelines/test_promote.py",
    "pipelines/test_retrain.py",
    "pipelines/test_recovery.py",
    "pipelines/promotion/test_move.py",
    "pipelines/test_train.py",
    "benchmarks/test_evaluation_scaling.py",
    "k8s/test_ray.py",
    "k8s/test_operator.py",
    "k8s/test_chart.py",
    "pipelines/evaluation/test_crew.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After their order was drawn."""
    here = Path(__file__).parent
    rank = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(LONGEST)))

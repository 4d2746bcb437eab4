"""What a Prometheus sees of a training: gauges of this process, which Ray exports as ``ray_NAME`` while it lives."""

from functools import cache
from typing import Any

ROBUST_ACCURACY = "holdfast_robust_accuracy"
"""On the validation images after an epoch, by ``run``: what the alarm's PGD leaves."""
TRACKING_BACKLOG = "holdfast_tracking_backlog"
"""Metrics that the tracking server has not confirmed, by ``run``."""
TRIALS = "holdfast_trials"
"""Of a search, by ``search`` and ``state``."""


def show(name: str, value: float, **tags: str) -> None:
    _gauge(name, tuple(sorted(tags))).set(value, tags)


@cache
def _gauge(name: str, keys: tuple[str, ...]) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(name, tag_keys=keys)

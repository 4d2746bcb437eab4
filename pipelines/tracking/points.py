"""Metric points, and the two ways they reach a tracking store."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from pipelines.tracking import server


class Point(NamedTuple):
    """``time``: when it was logged, in milliseconds since 1970."""

    key: str
    value: float
    time: int
    step: int


class Rejected(Exception):
    """The store answered, and will never take these points."""


class Store(Protocol):
    def last_steps(self) -> dict[str, int]:
        """The last step of every metric the run has."""

    def send(self, points: Sequence[Point]) -> None:
        """Write at most 1000 points, all or none.  One sent twice with the same time is stored once."""


def store(uri: str, run_id: str, timeout: float) -> Store:
    uri = server.absolute(uri)
    return Http(uri, run_id, timeout) if server.is_http(uri) else Database(uri, run_id)


class Http:
    """A tracking server.  A request is written as JSON directly: building it through MLflow's protocol buffers takes
    the interpreter nine times longer (8.8 against 0.95 ms a thousand points), and the training waits for it."""

    def __init__(self, uri: str, run_id: str, timeout: float) -> None:
        self.uri, self.run_id, self.timeout = uri, run_id, timeout

    def last_steps(self) -> dict[str, int]:
        answer = server.call(self.uri, "runs/get", {"run_id": self.run_id}, "GET", self.timeout)
        return {metric["key"]: int(metric.get("step", 0)) for metric in answer["run"]["data"].get("metrics", [])}

    def send(self, points: Sequence[Point]) -> None:
        from mlflow.exceptions import RestException

        metrics = [{"key": p.key, "value": _json(p.value), "timestamp": p.time, "step": p.step} for p in points]
        try:
            server.call(self.uri, "runs/log-batch", {"run_id": self.run_id, "metrics": metrics}, timeout=self.timeout)
        except RestException as error:
            raise _judged(error) from error


class Database:
    """A database opened by this process (SQLite on a laptop)."""

    def __init__(self, uri: str, run_id: str) -> None:
        self.client, self.run_id = server.client(uri), run_id

    def last_steps(self) -> dict[str, int]:
        return {m.key: int(m.step) for m in self.client.get_run(self.run_id).data.to_proto().metrics}

    def send(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(self.run_id, [Metric(p.key, p.value, p.time, p.step) for p in points])
        except MlflowException as error:
            raise _judged(error) from error


def _json(value: float) -> float | str:
    """Protocol buffers write what JSON has no number for as a string."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _judged(error: Any) -> Exception:
    """Only a refused argument (a deleted run, a name it will not take) is for ever; all else may pass."""
    return Rejected(str(error)) if error.error_code == "INVALID_PARAMETER_VALUE" else error

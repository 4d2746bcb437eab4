"""Requests to the tracking server have an end, and leave the environment as it was."""

import os

from pipelines.tracking import server

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def test_limits_that_overlap_hold_until_the_last_is_over(monkeypatch):
    """A lease is kept by a thread of its own."""
    monkeypatch.setenv(RETRIES, "7")
    first, second = server.bounded(), server.bounded()
    first.__enter__()
    second.__enter__()
    assert os.environ[RETRIES] == "2"
    first.__exit__(None, None, None)
    assert os.environ[RETRIES] == "2"
    second.__exit__(None, None, None)
    assert os.environ[RETRIES] == "7"

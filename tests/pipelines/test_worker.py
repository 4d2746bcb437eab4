"""What a worker decides by itself."""

import time

import pytest
import ray.train

from pipelines.worker import Run


@pytest.fixture
def run() -> Run:
    """One that has just saved, and would not again for ten minutes."""
    made = object.__new__(Run)
    made.config = {"checkpoint": {"minutes": 10}}
    made.saved_at, made.warned = time.monotonic(), False
    return made


def test_each_notice_of_pre_emption_is_answered_by_one_checkpoint(run, monkeypatch):
    notices = iter([None, "notice", "notice", None, "notice"])
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: next(notices))
    assert [run._save_now() for _ in range(5)] == [False, True, False, False, True]


def test_a_checkpoint_is_due_when_its_minutes_are_over(run, monkeypatch):
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
    assert not run._save_now()
    run.saved_at -= 601
    assert run._save_now()

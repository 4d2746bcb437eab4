"""What a worker decides by itself."""

import time
from unittest import mock

import pytest
import ray.train

from pipelines.errors import Failure
from pipelines.worker import Run
from trainers import state
from trainers.loop import Report


@pytest.fixture
def run() -> Run:
    """One that has just saved, and would not again for ten minutes."""
    made = object.__new__(Run)
    made.probed = {}
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


def test_a_full_storage_is_named_with_the_remedy(run, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/runs/mine/checkpoint_1")

    monkeypatch.setattr(ray.train, "report", full)
    monkeypatch.setattr(state, "save", lambda *_: None)
    run.config |= {"storage": "/runs"}
    run.journal, run.state = mock.Mock(pending=list), None
    run.seconds = 0.0
    report = Report(step=1, epoch=0.5, kind="report", metrics={}, seconds=0.0, images=8)
    with pytest.raises(Failure, match=r"storage=/runs: .*No space left on device.*free some space.*before it is kept"):
        run._save(report)

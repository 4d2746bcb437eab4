"""The board and what is drawn of it."""

import io
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError
from rich.console import Console

from pipelines import progress


def drawn(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> str:
    """What the console shows of a board that gives these answers, the last of them again and again."""
    coming: Iterator[Any] = iter(answers)

    def read(_: Any) -> Any:
        answer = next(coming, answers[-1])
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(progress, "_read", read)
    console = Console(file=io.StringIO(), width=120)
    with progress.display(None, "a run", console):
        time.sleep(0.6 * len(answers))
    return console.file.getvalue()  # type: ignore[attr-defined]


def epoch(n: int) -> dict[str, Any]:
    return {"epoch": float(n), "epochs": 3, "metrics": {"loss": 0.5, "hidden": 1.0}}


def test_a_line_an_epoch_and_each_note_once(monkeypatch):
    shown = drawn(monkeypatch, (epoch(1), ["a"]), (epoch(1), ["a"]), (epoch(2), ["a", "b"]))
    assert shown.splitlines() == [
        "note a",
        "a run  epoch 1/3  loss 0.500",
        "note b",
        "a run  epoch 2/3  loss 0.500",
    ]


def test_a_long_epoch_gives_signs_of_life(monkeypatch):
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.1)
    half = {**epoch(0), "epoch": 0.5}
    assert "a run  epoch 0.50/3  loss 0.500" in drawn(monkeypatch, (half, []))


def test_a_board_that_answers_late_is_asked_again(monkeypatch):
    assert "epoch 2/3" in drawn(monkeypatch, GetTimeoutError(), GetTimeoutError(), (epoch(2), []))


def test_a_dead_board_and_a_silent_one_end_the_drawing(monkeypatch):
    assert drawn(monkeypatch, ActorDiedError()) == ""
    start = time.monotonic()
    assert drawn(monkeypatch, GetTimeoutError()) == ""
    assert time.monotonic() - start < 3


@pytest.mark.usefixtures("ray_cluster")
def test_the_board_lives_where_the_driver_does():
    import ray

    handle = progress.board()
    handle.post.remote(epoch(1))
    handle.notice.remote("a")
    handle.notice.remote("a")
    assert progress._read(handle, within=30.0) == (epoch(1), ["a"])
    actor = ray._private.state.actors()[handle._actor_id.hex()]
    assert actor["Address"]["NodeID"] == ray.get_runtime_context().get_node_id()
    ray.kill(handle)

"""Actors that die, that cannot be made, and whose model fails: real processes, killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipelines.errors import Failure
from pipelines.evaluation import crew as crews
from pipelines.evaluation.crew import Actors, Here
from pipelines.evaluation.evaluator import Evaluator, Order
from trainers.attacks.apgd import APGD
from trainers.attacks.cascade import Cascade
from trainers.data.digits import Digits
from trainers.data.folder import Folder
from trainers.data.held_out import HeldOut
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.ledger import Item
from trainers.evaluation.piece import CLEAN, Piece
from trainers.threat import Linf

pytestmark = pytest.mark.usefixtures("ray_cluster")
PROBED = 8
"""Images in a batch that is no item's: a network is tried on so many while its evaluator is made."""
HELD = 6
"""Forwards of an item after which a network that is held waits."""


class Watched(nn.Module):
    """A linear network that writes ``pid, images`` to ``folder/forwards``, and does as the files there say."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.head = folder, nn.Linear(64, 10)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(10, 64, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().amin()) < 0:  # a look at the values: so it is not traced, and all here happens each time
            raise AssertionError
        if (self.folder / "refuse").exists():
            raise ConnectionError("no route to the licence server")
        with (self.folder / "forwards").open("a") as file:
            file.write(f"{os.getpid()} {len(x)}\n")
        while len(forwards(self.folder)) >= HELD and (self.folder / "hold").exists():
            time.sleep(0.005)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def forwards(folder: Path) -> list[int]:
    """The process of each forward of an item."""
    rows = [line.split() for line in (folder / "forwards").read_text().splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) != PROBED]


def order(folder: Path, exam: HeldOut | None = None) -> Order:
    (folder / "middle").mkdir(exist_ok=True)
    return Order(
        Watched(folder),
        exam or HeldOut(Digits(), limit=96),
        [Cascade([APGD(Linf(1e-4), steps=12)])],
        Effort(),
        compile=False,
        threads=1,
        middles=str(folder / "middle"),
        seconds=0,
    )


def none(*_: object) -> None:
    """Nothing is to be done."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crew")


@pytest.fixture(scope="module")
def crew(folder: Path, ray_cluster: None) -> Iterator[Actors]:
    """Two actors, of which each test may kill some."""
    made = Actors(order(folder), 2, False, {"CPU": 0.25})
    yield made
    made.close()


@pytest.fixture
def lean(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Actors]]:
    """Makes a crew of one actor without a network, which cannot be made where an error is given.

    All that it is sent is local to a function, which travels by value: importing this file takes an actor seconds.
    """

    class Lean:
        def __init__(self, error, device):
            if error:
                raise error()

        def ready(self): ...

        def ask(self, question):
            return question(self)

    made: list[Actors] = []

    def make(error: Any = None) -> Actors:
        made.append(Actors(error, 1, False, {"CPU": 0.25}))
        return made[-1]

    monkeypatch.setattr(crews, "Evaluator", Lean)
    yield make
    for one in made:
        one.close()


def test_questions_survive_who_was_asked_and_keep_their_order(crew, tmp_path):
    def deadly(_: Evaluator) -> str:
        if not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    def same(what: int) -> Callable[[Evaluator], int]:
        return lambda _: what

    assert crew.ask([same(0), deadly, *map(same, range(2, 9))]) == [0, "survived", *range(2, 9)]
    assert (tmp_path / "killed").exists()
    assert crew.ask([]) == []


def test_what_the_model_raises_is_raised_as_it_is(crew, folder):
    items = [Item(-1, CLEAN, torch.arange(5))]
    (folder / "refuse").touch()
    try:
        with pytest.raises(ConnectionError, match=r"^no route to the licence server$") as caught:
            list(crew.work(lambda: items.pop() if items else None, none, none))
        assert caught.type is ConnectionError
        with pytest.raises(ConnectionError, match=r"^no route"):
            crew.ask([lambda evaluator: evaluator.model(torch.zeros(1, 1, 8, 8))])
    finally:
        (folder / "refuse").unlink()
    items = [Item(-1, CLEAN, torch.arange(5))]
    assert len(list(crew.work(lambda: items.pop() if items else None, none, none))) == 1


def test_an_item_goes_on_from_its_middle_with_another_actor(crew, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(crews, "BEAT", 0.05)
    whole = order(tmp_path)
    batch = whole.exam.batch(torch.arange(96))
    right = Watched(tmp_path)(batch.x).argmax(1) == batch.y
    item = Item(0, "apgd-ce", right.nonzero()[:6, 0])
    (tmp_path / "forwards").unlink()
    items = [item]
    ((_, expected),) = Here(whole, "cpu").work(lambda: items.pop() if items else None, none, none)
    steps = len(forwards(tmp_path))

    (folder / "forwards").unlink(missing_ok=True)
    (folder / "hold").touch()
    killed, items = list[int](), [item]
    returned = list[Item]()

    def kill() -> None:
        if not killed and (folder / "forwards").exists() and len(begun := forwards(folder)) == HELD:
            assert list((folder / "middle").glob("*.safetensors"))
            psutil.Process(begun[0]).kill()
            killed.append(begun[0])
            (folder / "hold").unlink()

    def give_back(lost: Item) -> None:
        returned.append(lost)
        items.append(lost)

    ((done, piece),) = crew.work(lambda: items.pop() if items else None, give_back, kill)
    assert returned == [item]
    assert returned[0] is done is item
    after = [who for who in forwards(folder) if who not in killed]
    assert 0 < len(after) < steps
    assert _verdicts(piece) == _verdicts(expected)
    assert (piece.forwards, piece.backwards) == (expected.forwards, expected.backwards)


def _verdicts(piece: Piece) -> Any:
    """Without what hangs on the clock, or, where two classes tie, on how many threads round."""
    return {key: value for key, value in piece.plain().items() if key not in ("seconds", "prediction", "distance")}


def test_more_losses_than_may_be_are_a_failure(lean, monkeypatch):
    crew, losses = lean(), crews.LOSSES
    (idle,) = crew.ask([lambda _: os.getpid()])
    psutil.Process(idle).kill()
    assert crew.ask([lambda _: os.getpid()]) != [idle]
    told = rf"^{losses + 1} evaluation workers were lost one after the other .* the same command"
    with pytest.raises(Failure, match=told):
        crew.ask([lambda _: os.kill(os.getpid(), signal.SIGKILL)])


def test_nothing_is_left_of_a_closed_crew(lean):
    crew = lean()
    (process,) = map(psutil.Process, crew.ask([lambda _: os.getpid()]))
    assert process.is_running()
    crew.close()
    process.wait(timeout=60)
    assert not process.is_running()


def test_an_image_that_cannot_be_read_is_told_as_it_is(tmp_path):
    for k in range(2):
        path = tmp_path / "images" / ("train", "test")[k] / "cat" / f"{k}.png"
        path.parent.mkdir(parents=True)
        Image.new("L", (8, 8)).save(path)
    path.write_bytes(b"not a picture")
    exam = HeldOut(Folder(str(tmp_path / "images")), input_size=(1, 8, 8))
    crew = Actors(order(tmp_path, exam), 1, False, {"CPU": 0.25})
    with pytest.raises(ValueError, match=r"^image \S*1\.png cannot be decoded .* set data\.on_corrupt=skip") as caught:
        list(crew.work(lambda: Item(-1, CLEAN, torch.arange(1)), none, none))
    assert caught.type is ValueError
    crew.close()


def odd() -> Callable[[], Exception]:
    """Of an error that does not travel: what it is made of is not what it is made from."""

    class Odd(Exception):
        def __init__(self, have, need):
            super().__init__(f"{have} of {need} there")

    return lambda: Odd(3, 5)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda: RuntimeError("no kernel is there\nfor help, see there"), "RuntimeError: no kernel is there"),
        (lambda: MemoryError("64 GB"), "MemoryError: 64 GB; there is too little memory: use fewer workers"),
        (odd(), "Odd: 3 of 5 there"),
    ],
)
def test_why_no_actor_can_be_made_is_told_in_one_line(lean, error, words):
    with pytest.raises(Failure) as caught:
        lean(error).ask([lambda _: os.getpid()])
    told = str(caught.value)
    assert words in told
    assert "lost" not in told
    assert ("memory" in told) == ("MemoryError" in words)
    assert not {"\x1b", "\n"} & set(told)

"""An item of work may be cut anywhere, any number of times: what it ends with, and what it costs, stays."""

import copy
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.trainers.attacks.nets import trained
from trainers import state_file
from trainers.attacks.apgd import APGD
from trainers.attacks.fab import FAB
from trainers.attacks.malt import MALT
from trainers.attacks.pgd import PGD
from trainers.attacks.square import Square
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.exam import Given
from trainers.evaluation.ledger import Item
from trainers.evaluation.meter import Meter
from trainers.evaluation.piece import CLEAN, Piece
from trainers.evaluation.task import Task
from trainers.threat import L2, Linf
from trainers.types import Attack

N = 22
SEARCHES = [
    APGD(Linf(0.035), steps=12, restarts=2),
    APGD(L2(0.7), "targeted_dlr", steps=8, targets=3),
    APGD(Linf(0.035), "targeted_dlr", steps=5, targets=2, restarts=2),
    MALT(Linf(0.035), steps=6, targets=3, candidates=5),
    FAB(L2(0.7), steps=6, targets=3),
    FAB(Linf(0.035), steps=4, targets=0, restarts=2),
    Square(Linf(0.25), queries=30),
    Square(L2(5.0), queries=15, restarts=2),
]
each_search = pytest.mark.parametrize("search", SEARCHES, ids=repr)


@pytest.fixture(scope="module")
def net() -> tuple[nn.Module, Given]:
    """A network in float64, and images it classifies rightly, whose ids are not their rows."""
    model, x, y = trained(10)
    model = copy.deepcopy(model).double()
    right = (model(x.double()).argmax(1) == y).nonzero()[:N, 0]
    return model, Given(x[right].double(), y[right], 5 + 3 * (torch.arange(N) * 7 % N))


def task(net, attack: Attack | None, effort: Effort, rows: Tensor | None = None) -> Task:
    item = Item(
        -1 if attack is None else 2, attack.name if attack else CLEAN, torch.arange(N) if rows is None else rows
    )
    return Task(item, attack, Meter(net[0]), net[1], 10, effort)


def resumed(net, attack: Attack, effort: Effort, path: Path) -> Task:
    """As another process would."""
    return Task.resumed(path, lambda item: attack, Meter(net[0]), net[1], 10, effort, torch.device("cpu"))


def to_the_end(some: Task, most: int = 10**6) -> bool:
    """Whether it came there in ``most`` turns."""
    turns = iter(some)
    return any(next(turns, some) is some for _ in range(most))


def rest(some: Task) -> Piece:
    to_the_end(some)
    return some.piece()


def same(piece: Piece, expected: Piece) -> None:
    ours, theirs = piece.ids.argsort(), expected.ids.argsort()
    assert sorted(piece.ids.tolist()) == sorted(expected.ids.tolist())
    assert len(piece.ids.unique()) == len(piece.ids)
    for name in ("fooled", "prediction", "outside", "finite"):
        assert getattr(piece, name)[ours].equal(getattr(expected, name)[theirs]), name
    torch.testing.assert_close(piece.distance[ours], expected.distance[theirs], rtol=0, atol=1e-9)
    assert (piece.forwards, piece.backwards) == (expected.forwards, expected.backwards)
    assert (piece.chain, piece.attack) == (expected.chain, expected.attack)


@each_search
@pytest.mark.parametrize(
    ("size", "every"), [(9, 1), (64, 1), (5, 4)], ids=["some wait", "all begun", "looked at seldom"]
)
def test_however_often_it_is_cut_it_ends_the_same(net, search, size, every, tmp_path):
    effort, draw, path = Effort(3, size, every=every), random.Random(size), tmp_path / "middle"
    whole = rest(task(net, search, effort))
    assert len(whole.ids) == N
    assert 0 < int(whole.fooled.sum()) < N
    some, cuts = task(net, search, effort), 0
    while not to_the_end(some, draw.randint(1, 5)):
        if some.save(path):
            some, cuts = resumed(net, search, effort, path), cuts + 1
    same(some.piece(), whole)
    assert cuts >= 2


@each_search
def test_the_last_middle_leaves_nothing_to_do(net, search, tmp_path):
    effort, rows = Effort(batch_size=4), torch.tensor([7, 2, 11])
    one = task(net, search, effort, rows)
    for _ in one:
        assert one.save(tmp_path / "middle")
    two = resumed(net, search, effort, tmp_path / "middle")
    assert two.piece().plain() == one.piece().plain()
    assert two.piece().ids.tolist() != []
    same(rest(two), one.piece())


def test_a_middle_knows_its_item_and_asks_for_its_attack(net, tmp_path):
    search, asked = SEARCHES[0], []
    one = task(net, search, Effort(batch_size=8), torch.arange(3, N))
    next(iter(one))
    one.save(tmp_path / "middle")
    Task.resumed(
        tmp_path / "middle", lambda item: asked.append(item) or search, Meter(net[0]), net[1], 10, Effort(),
        torch.device("cpu"),
    )  # fmt: skip
    (item,) = asked
    assert (item.chain, item.attack, item.rows.tolist()) == (2, "apgd-ce", list(range(3, N)))
    assert item.rows.dtype == torch.int64


def test_who_has_ended_and_who_is_on_the_way_is_not_begun_again(net, tmp_path):
    search, effort = APGD(Linf(0.035), steps=12), Effort(batch_size=6)
    one = task(net, search, effort)
    for _ in one:
        if len(one.piece().ids) >= 4:
            break
    ended, rows = set(one.piece().ids.tolist()), state_file.read(_saved(one, tmp_path / "middle"))[1]
    assert ended.isdisjoint(rows["id"].tolist())
    two = resumed(net, search, effort, tmp_path / "middle")
    read = _reads(net[1], two)
    rest(two)
    assert read.isdisjoint(ended | set(rows["id"].tolist()))
    assert len(read) + len(ended) + len(rows["id"]) == N


def _saved(some: Task, path: Path) -> Path:
    assert some.save(path)
    return path


def _reads(exam: Given, some: Task) -> set[int]:
    """The ids of what the task will have read, filled as it goes."""
    seen: set[int] = set()

    class Watched:
        ids, labels, corrupt = exam.ids, exam.labels, exam.corrupt

        def batch(self, rows: Tensor, device: str | torch.device = "cpu"):
            seen.update(exam.ids[rows].tolist())
            return exam.batch(rows, device)

    some._exam = Watched()
    return seen


@pytest.mark.parametrize(
    ("attack", "effort"),
    [(PGD(Linf(0.035), steps=3), Effort(0, 5)), (SEARCHES[0], Effort(0, 5, reference=True)), (None, Effort(0, 5))],
    ids=["no search", "in the authors' order", "the clean step"],
)
def test_what_has_no_middle_says_so(net, attack, effort, tmp_path):
    some = task(net, attack, effort)
    assert not some.save(tmp_path / "middle")
    for _ in some:
        assert not some.save(tmp_path / "middle")
    assert list(tmp_path.iterdir()) == []
    assert sorted(some.piece().ids.tolist()) == sorted(net[1].ids.tolist())


def test_before_the_first_turn_there_is_nothing_to_write_down(net, tmp_path):
    assert not task(net, SEARCHES[0], Effort()).save(tmp_path / "middle")


@pytest.mark.parametrize("damage", ["cut short", "one bit", "not ours", "no file"])
def test_a_damaged_middle_is_found_out(net, damage, tmp_path):
    path, some = tmp_path / "middle", task(net, SEARCHES[0], Effort())
    next(iter(some))
    content = _saved(some, path).read_bytes()
    if damage == "cut short":
        path.write_bytes(content[:-100])
    elif damage == "one bit":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    elif damage == "not ours":
        save_file({"x": torch.zeros(2)}, path)
    else:
        path.unlink()
    with pytest.raises(state_file.StateError, match=str(path)):
        resumed(net, SEARCHES[0], Effort(), path)


def test_the_clean_step_by_hand(net):
    model, exam = net
    exam = Given(exam.x, (exam.labels + (torch.arange(N) % 5 == 0).long()) % 10, exam.ids)
    piece = rest(task((model, exam), None, Effort(batch_size=4)))
    assert piece.ids.equal(exam.ids)
    assert piece.fooled.tolist() == [row % 5 == 0 for row in range(N)]
    assert piece.prediction.equal(net[1].labels)
    assert piece.finite.all()
    assert (piece.forwards, piece.backwards, piece.chain) == (N, 0, -1)
    assert piece.seconds > 0


def test_only_the_items_own_rows_are_worked_on(net):
    rows = torch.tensor([3, 4, 9, 20])
    for attack in (None, SEARCHES[0], PGD(Linf(0.035), steps=2)):
        assert sorted(rest(task(net, attack, Effort(), rows)).ids.tolist()) == sorted(net[1].ids[rows].tolist())


class _Spoilt(nn.Module):
    """Some logit of the darker images is ``value``, its class never theirs."""

    def __init__(self, model: nn.Module, value: float, below: float) -> None:
        super().__init__()
        self.model, self.value, self.below = model, value, below

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        dark = x.mean((1, 2, 3)) < self.below
        least = torch.nn.functional.one_hot(logits.argmin(1), logits.shape[1]).bool()
        return torch.where(dark[:, None] & least, self.value, logits)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_logits_that_are_no_numbers_are_counted_and_a_nan_is_wrong(net, value):
    model, exam = net
    brightness = exam.x.mean((1, 2, 3))
    below = float(brightness.median()) + 1e-9
    dark = brightness < below
    piece = rest(task((_Spoilt(model, value, below), exam), None, Effort()))
    assert 0 < dark.sum() < N
    assert piece.finite.equal(~dark)
    assert piece.fooled.equal(dark & (value != value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 255, y), r"images reach from 0 to 2\d\d.*not divided by 255"),
        (lambda x, y: (x * 2 - 1, y), "images reach from -1 .*already normalised"),
        (lambda x, y: (x * torch.nan, y), "not within"),
        (lambda x, y: (x, y - 1), "labels reach from -1 to 8, the model has 10 classes, 0 to 9"),
        (lambda x, y: (x, y + 1), "labels reach from 1 to 10"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(net, change, message):
    x, y = change(net[1].x, net[1].labels)
    with pytest.raises(ValueError, match=message):
        rest(task((net[0], Given(x, y, net[1].ids)), None, Effort()))


class _Twice(nn.Module):
    """As many logits again: those of the mirrored images, not averaged."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.cat([logits, logits])


@pytest.mark.parametrize(
    ("last", "shape"),
    [
        (nn.Linear(10, 9).double(), r"\(22, 9\)"),
        (nn.Unflatten(1, (10, 1)), r"\(22, 10, 1\)"),
        (nn.Flatten(0), r"\(2[24]0,\)"),
        (_Twice(), r"\(4[48], 10\)"),
    ],
    ids=["classes", "dimensions", "flat", "twice as many"],
)
@pytest.mark.parametrize("sizes", [(), (24,)], ids=["as they are", "padded"])
def test_logits_of_another_shape_are_refused(net, last, shape, sizes):
    model = nn.Sequential(net[0], last)
    some = Task(Item(-1, CLEAN, torch.arange(N)), None, Meter(model, sizes), net[1], 10, Effort())
    with pytest.raises(ValueError, match=rf"the model gives {shape} for 22 images of 10 classes"):
        rest(some)

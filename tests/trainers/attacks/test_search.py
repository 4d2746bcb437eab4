"""A walk: the same verdicts for any batch, order or interruption."""

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.attacks.nets import trained
from trainers import noise
from trainers.attacks.apgd import APGD
from trainers.attacks.fab import FAB
from trainers.attacks.search import Rows, Search, Walk
from trainers.attacks.square import Square
from trainers.modes import frozen
from trainers.threat import L1, L2, Linf
from trainers.types import Batch

SEARCHES = [
    search
    for threat in (Linf(0.05), L2(0.7), L1(5.0))
    for search in (
        APGD(threat, steps=30, restarts=2),
        APGD(threat, "targeted_dlr", steps=20, targets=3),
        FAB(threat, steps=15, targets=3),
        FAB(threat, steps=8, targets=0, restarts=2),
        Square(threat, queries=40),
    )
]
SEARCHES += [
    APGD(L1(5.0), steps=20, restarts=2, larger_eps=True),
    APGD(L1(5.0), "targeted_dlr", steps=10, targets=3, larger_eps=True),
]
each_search = pytest.mark.parametrize("search", SEARCHES, ids=repr)


def source(x: Tensor, y: Tensor, order: Tensor, size: int) -> list[Batch]:
    return [Batch(x[rows], y[rows], rows) for rows in order.split(size)]


def streams(ids: Tensor) -> Tensor:
    return noise.stream(ids, 11)


def walk(search: Search, net: nn.Module, batches: list[Batch], size: int, **settings: object) -> Walk:
    return Walk(search, net, batches, size, classes=10, streams=streams, **settings)


def outcome(ended: list[Rows], n: int) -> tuple[Tensor, Tensor]:
    """``(won, found)`` in the order of the ids; each example ended once."""
    ids = torch.cat([rows["id"] for rows in ended])
    assert sorted(ids.tolist()) == list(range(n))
    order = ids.argsort()
    found = [torch.where(rows["won"][:, None, None, None], rows["found"], rows["x"]) for rows in ended]
    return torch.cat([rows["won"] for rows in ended])[order], torch.cat(found)[order]


@pytest.fixture(scope="module")
def net() -> tuple[nn.Module, Tensor, Tensor]:
    import copy

    model, x, y = trained(10)
    model = copy.deepcopy(model).double()
    x = x.double()
    right = (model(x).argmax(1) == y).nonzero()[:24, 0]
    return model, x[right], y[right]


@each_search
def test_the_verdict_is_the_example_s_own(search, net):
    model, x, y = net
    n = len(x)
    with frozen(model):
        whole = outcome(list(walk(search, model, source(x, y, torch.arange(n), n), n)), n)
        assert whole[0].sum() > 0 or isinstance(search, Square)
        for size, batches, order in (
            (1, 5, torch.arange(n)),
            (7, 3, torch.arange(n).flip(0)),
            (64, 24, torch.randperm(n)),
        ):
            again = outcome(list(walk(search, model, source(x, y, order, batches), size)), n)
            assert torch.equal(again[0], whole[0])
            torch.testing.assert_close(again[1], whole[1], rtol=0, atol=1e-9)


@each_search
def test_a_walk_that_is_cut_goes_on_from_its_rows(search, net):
    model, x, y = net
    n, size = len(x), 10
    with frozen(model):
        whole = outcome(list(walk(search, model, source(x, y, torch.arange(n), 4), size)), n)
        ended, taken = [], walk(search, model, source(x, y, torch.arange(n), 4), size)
        for rows in taken:
            ended.append(rows)
            if sum(len(some["id"]) for some in ended) >= 5:
                break
        assert taken.rows is not None
        kept = {name: value.clone() for name, value in taken.rows.items()}
        seen = set(torch.cat([rows["id"] for rows in ended]).tolist()) | set(kept["id"].tolist())
        rest = torch.tensor([i for i in range(n) if i not in seen], dtype=torch.int64)
        batches = source(x, y, rest, 4) if len(rest) else []
        ended += list(walk(search, model, batches, size, rows=kept))
        again = outcome(ended, n)
    assert torch.equal(again[0], whole[0])
    torch.testing.assert_close(again[1], whole[1], rtol=0, atol=1e-9)


@each_search
def test_looking_seldom_changes_nothing(search, net):
    model, x, y = net
    n = len(x)
    with frozen(model):
        each, seldom = (
            outcome(list(walk(search, model, source(x, y, torch.arange(n), n), 9, every=e)), n) for e in (1, 7)
        )
    assert torch.equal(each[0], seldom[0])


def test_no_more_examples_walk_than_there_is_room_for(net):
    model, x, y = net
    calls = []
    model.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    with frozen(model):
        list(walk(APGD(Linf(0.05), steps=5), model, source(x, y, torch.arange(len(x)), 5), 6))
    model._forward_pre_hooks.clear()
    assert max(calls) == 6

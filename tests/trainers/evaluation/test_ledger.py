"""Whoever does which item when, and how often: the same verdicts, and nobody's example twice at once."""

import json
import random
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tests.trainers.evaluation.played import CHAINS, N, Play, Table
from trainers.evaluation.ledger import Item, Ledger
from trainers.evaluation.piece import CLEAN, Piece


def everything(ledger: Ledger) -> dict[str, object]:
    """All that a ledger knows but the cost."""
    known = {name: getattr(ledger, name).tolist() for name in ("clean", "right", "finite", "attacked", "distance")}
    every = range(len(ledger.chains))
    robust = [ledger.robust(chain).tolist() for chain in every]
    return known | {
        "by": [ledger.by(chain) for chain in every], "robust": robust, "outside": ledger.outside,
        "corrupt": ledger.corrupt, "ended": ledger.ended(), "unfinished": ledger.unfinished(),
    }  # fmt: skip


def truth(table: Table) -> dict[str, object]:
    """The same, read off the table example by example."""
    clean = torch.where(table.wrong, (table.y + 1) % 10, table.y)
    finite, outside, ended = table.clean_finite.clone(), [], [(-1, CLEAN, int((~table.wrong).sum()))]
    attacked, distance = clean.repeat(len(CHAINS), 1), torch.zeros(len(CHAINS), N, dtype=torch.float64)
    for chain, names in enumerate(CHAINS):
        outside.append(0)
        for row in range(N):
            for k in table.met(chain, row):
                finite[row] &= table.finite[chain, k, row]
                if table.fooled[chain, k, row]:
                    attacked[chain, row] = table.prediction[chain, k, row]
                    distance[chain, row] = table.distance[chain, k, row]
                else:
                    outside[chain] += int(table.outside[chain, k, row])
        ended += [(chain, name, table.by(chain, k + 1).count("")) for k, name in enumerate(names)]
    by = [table.by(chain) for chain in range(len(CHAINS))]
    return {
        "clean": clean.tolist(), "right": (~table.wrong).tolist(), "finite": finite.tolist(),
        "attacked": attacked.tolist(), "distance": distance.tolist(), "by": by,
        "robust": [[name == "" for name in some] for some in by], "outside": outside,
        "corrupt": {int(table.ids[row]): f"image {row}" for row in table.corrupt.nonzero()[:, 0].tolist()},
        "ended": ended, "unfinished": [],
    }  # fmt: skip


def cost(pieces: list[Piece]) -> dict[tuple[int, str], dict[str, float]]:
    total: dict[tuple[int, str], dict[str, float]] = {}
    for piece in pieces:
        before = total.get((piece.chain, piece.attack), dict.fromkeys(piece.cost, 0))
        total[piece.chain, piece.attack] = {name: before[name] + piece.cost[name] for name in before}
    return total


def same(play: Play) -> None:
    assert everything(play.ledger) == truth(play.table)
    assert {key: piece.cost for key, piece in play.ledger.costs.items()} == cost(play.pieces)


@pytest.mark.parametrize("lockstep", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 5, 16, 200])
def test_any_cut_and_any_order_give_the_same_verdicts(size, workers, lockstep):
    for seed in range(3):
        same(Play(Table(seed), seed, size, workers, lockstep).turns())


@pytest.mark.parametrize(
    "settings", [{"lost": 0.3}, {"twice": 0.5}, {"late": 0.3}, {"lost": 0.2, "twice": 0.3}], ids=str
)
@pytest.mark.parametrize("workers", [1, 3])
def test_items_lost_done_twice_or_too_late_change_nothing(workers, settings):
    for seed in range(6):
        same(Play(Table(seed), seed, 7, workers, **settings).turns())


def test_without_losses_every_example_meets_an_attack_once():
    table = Table(1)
    play = Play(table, 1, 6, 3).turns()
    for chain, names in enumerate(CHAINS):
        for place, name in enumerate(names):
            met = [r for item in play.given if (item.chain, item.attack) == (chain, name) for r in item.rows.tolist()]
            assert sorted(met) == [row for row in range(N) if place in table.met(chain, row)]
    assert sorted(r for item in play.given if item.attack == CLEAN for r in item.rows.tolist()) == list(range(N))


@pytest.mark.parametrize("stop", [0, 1, 5, 20, 60])
def test_a_ledger_told_what_is_known_goes_on(stop):
    """As a journal tells it: pieces in the order of the chain, and some items on their way reserved."""
    for seed in range(3):
        table = Table(seed)
        before = Play(table, seed, 6, 3, lost=0.1).turns(stop)
        after = Play(table, seed + 100, 4, 2)
        known = [Piece.of_plain(json.loads(json.dumps(piece.plain()))) for piece in before.pieces]
        random.Random(seed).shuffle(known)
        for piece in sorted(known, key=after.ledger.place):
            after.deliver(piece)
        assert cost(after.pieces) == cost(before.pieces)
        for item in before.away:
            assert after.ledger.waiting(item)
            after.ledger.reserve(item)
        after.away = list(before.away)
        same(after.turns())
        assert not any(after.ledger.waiting(item) for item in [*before.given, *after.given])


def test_attacks_known_before_the_clean_step_are_kept():
    """The clean step's file may be lost, those of attacks not."""
    table = Table(3)
    done, again = Play(table, 3, 6).turns(), Play(table, 4, 9)
    for piece in done.pieces:
        if piece.attack != CLEAN:
            again.deliver(piece)
    assert again.ledger.ended() == []
    same(again.turns())
    assert {item.attack for item in again.given} == {CLEAN}


def test_the_clean_step_comes_first_and_the_earliest_attack_next():
    play, order = Play(Table(0), 0, 8), {(-1, CLEAN): -1}
    order |= {(chain, name): 10 * chain + k for chain, names in enumerate(CHAINS) for k, name in enumerate(names)}
    while item := play.ledger.take(8):
        play.checked(item)
        play.deliver(play.table.piece(item))
    places = [order[item.chain, item.attack] for item in play.given]
    assert places == sorted(places)
    assert [len(item.rows) for item in play.given[:5]] == [8, 8, 8, 8, 5]


@pytest.mark.parametrize("seed", range(4))
def test_in_lockstep_an_attack_waits_for_the_one_before_and_its_items_follow_each_other(seed):
    table = Table(seed)
    play = Play(table, seed, 5, 3, lockstep=True)
    same(play.turns())
    for chain, names in enumerate(CHAINS):
        for place, name in enumerate(names):
            rows = [item.rows for item in play.given if (item.chain, item.attack) == (chain, name)]
            standing = torch.tensor([row for row in range(N) if place in table.met(chain, row)])
            assert [some.tolist() for some in rows] == [some.tolist() for some in standing.split(5)]


def test_in_lockstep_a_lost_item_is_cut_as_before():
    table = Table(2)
    whole, lossy = (Play(table, 2, 5, 3, lockstep=True, lost=lost).turns() for lost in (0, 0.4))
    cut = {(item.chain, item.attack, tuple(item.rows.tolist())) for item in whole.given}
    assert cut == {(item.chain, item.attack, tuple(item.rows.tolist())) for item in lossy.given}
    assert len(lossy.given) > len(whole.given)


def test_several_workers_get_items_of_what_is_left():
    ids = torch.arange(160)
    for workers, first, items in ((1, 64, 3), (2, 40, 4), (5, 16, 10), (6, 27, 6), (20, 8, 20), (1000, 1, 160)):
        ledger = Ledger(ids, CHAINS)
        sizes = []
        while item := ledger.take(64, workers):
            sizes.append(len(item.rows))
        assert sizes[0] == first
        assert sum(sizes) == 160
        assert len(sizes) == items
    lockstep = Ledger(ids, CHAINS, lockstep=True)
    assert [len(item.rows) for item in iter(lambda: lockstep.take(64, 5), None)] == [64, 64, 32]


def clean(ledger: Ledger, wrong: list[int]) -> None:
    n = len(ledger.ids)
    bad, none = torch.isin(torch.arange(n), torch.tensor(wrong)), torch.zeros(n, dtype=torch.bool)
    ledger.add(Piece(-1, CLEAN, ledger.ids, bad, bad.long(), none.double(), none, ~none))


def attacked(chain: int, name: str, ids: Tensor, fooled: list[bool]) -> Piece:
    by, none = torch.tensor(fooled), torch.zeros(len(ids), dtype=torch.bool)
    return Piece(chain, name, ids, by, 2 * by.long(), by.double(), none, ~none)


def test_what_is_known_by_hand():
    """Six examples; 5 is wrong as it is, "a" fools 1 and 3, "b" fools 2 of the others and has yet to meet 4."""
    ledger = Ledger(10 * torch.arange(6), [["a", "b", "c"], ["a"]])
    assert ledger.ended() == []
    assert ledger.unfinished() == [(-1, CLEAN, 6)]
    clean(ledger, [5])
    assert ledger.ended() == [(-1, CLEAN, 5)]
    assert ledger.unfinished() == [(0, "a", 5), (1, "a", 5)]
    ledger.add(attacked(0, "a", ledger.ids[:5], [False, True, False, True, False]))
    ledger.add(attacked(0, "b", ledger.ids[[2, 0]], [True, False]))
    assert ledger.ended() == [(-1, CLEAN, 5), (0, "a", 3)]
    assert ledger.unfinished() == [(0, "b", 1), (0, "c", 1), (1, "a", 5)]
    assert ledger.by(0) == ["", "a", "b", "a", "", CLEAN]
    assert ledger.by(0, 1) == ["", "a", "", "a", "", CLEAN]
    assert ledger.by(0, 0) == ["", "", "", "", "", CLEAN]
    assert ledger.robust(0).tolist() == [True, False, False, False, True, False]
    assert ledger.robust(0, 1).tolist() == [True, False, True, False, True, False]
    assert ledger.robust(1).tolist() == ledger.robust(0, 0).tolist() == [True] * 5 + [False]
    assert ledger.attacked.tolist() == [[0, 2, 2, 2, 0, 1], [0, 0, 0, 0, 0, 1]]


def test_an_item_waits_while_any_of_its_examples_does_and_goes_out_once():
    ledger = Ledger(torch.arange(6), [["a", "b"]])
    clean(ledger, [5])
    on = {name: Item(0, name, torch.arange(6)) for name in "ab"}
    assert (ledger.waiting(on["a"]), ledger.waiting(on["b"])) == (True, False)
    assert not ledger.waiting(Item(0, "a", torch.tensor([5])))
    assert not ledger.waiting(Item(-1, CLEAN, torch.arange(6)))
    ledger.add(attacked(0, "a", torch.arange(3), [False, True, False]))
    assert (ledger.waiting(on["a"]), ledger.waiting(on["b"])) == (True, True)
    ledger.reserve(on["a"])
    assert ledger.take(9) == Taken("b", [0, 2])
    assert ledger.take(9) is None
    ledger.give_back(on["a"])
    assert ledger.take(9) == Taken("a", [3, 4])
    assert ledger.take(9) is None
    ledger.add(attacked(0, "a", torch.arange(6), [True] * 6))
    assert not ledger.waiting(on["a"])
    assert ledger.take(9) is None
    assert ledger.by(0) == ["", "a", "", "a", "a", CLEAN]


@dataclass
class Taken:
    """An item of the first chain, to compare with."""

    attack: str
    rows: list[int]

    def __eq__(self, item: object) -> bool:
        assert isinstance(item, Item)
        return (item.chain, item.attack, item.rows.tolist()) == (0, self.attack, self.rows)


def test_a_late_piece_frees_nobody_who_is_at_another_attack():
    ledger = Ledger(torch.arange(4), [["a", "b"]])
    clean(ledger, [])
    late = attacked(0, "a", torch.arange(4), [False] * 4)
    ledger.add(late)
    assert len(ledger.take(9).rows) == 4
    ledger.add(late)
    assert ledger.take(9) is None


def test_the_clean_step_done_again_forgets_no_attack():
    ledger = Ledger(torch.arange(4), [["a"]])
    clean(ledger, [3])
    piece = attacked(0, "a", torch.arange(3), [True, False, True])
    ledger.add(replace(piece, finite=torch.tensor([True, False, True])))
    before = everything(ledger)
    clean(ledger, [3])
    assert everything(ledger) == before
    assert ledger.attacked.tolist() == [[2, 0, 2, 1]]
    assert ledger.finite.tolist() == [True, False, True, True]


def test_a_piece_of_other_examples_or_attacks_is_refused():
    ledger = Ledger(torch.arange(4), [["a"]])
    with pytest.raises(KeyError):
        ledger.rows(torch.tensor([2, 9]))
    with pytest.raises(ValueError, match="not in tuple"):
        ledger.place(Piece.empty(0, "b"))
    with pytest.raises(IndexError):
        ledger.place(Piece.empty(1, "a"))
    assert ledger.rows(torch.tensor([3, 0])).tolist() == [3, 0]


def test_a_piece_is_what_json_gives_back():
    piece = Play(Table(0), 0, 50).turns().pieces[0]
    again = Piece.of_plain(json.loads(json.dumps(piece.plain())))
    assert again.plain() == piece.plain()
    assert again.corrupt == piece.corrupt != {}
    assert again.distance.dtype == torch.float64
    assert Piece.of_plain(json.loads(json.dumps(Piece.empty(0, "a").plain()))).ids.dtype == torch.int64

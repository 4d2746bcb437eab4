"""Work on a ledger, in any order and with any losses, of which it is known how it must end."""

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainers.evaluation.ledger import Item, Ledger
from trainers.evaluation.piece import CLEAN, Piece

N = 37
CHAINS = [["ce", "t", "fab", "square"], ["ce", "square"], ["t"]]


@dataclass
class Table:
    """Who would be fooled by what: the truth that pieces are read off."""

    seed: int

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.seed)

        def chance(p: float, *shape: int) -> Tensor:
            return torch.rand(*shape, generator=draw) < p

        self.ids = torch.randperm(1000, generator=draw)[:N]
        self.y = torch.randint(10, (N,), generator=draw)
        self.wrong, self.corrupt = chance(0.2, N), chance(0.05, N)
        self.wrong |= self.corrupt
        self.clean_finite = ~chance(0.1, N)
        shape = (len(CHAINS), 4, N)
        self.fooled, self.outside, self.finite = chance(0.3, *shape), chance(0.1, *shape), ~chance(0.1, *shape)
        self.distance = torch.rand(*shape, generator=draw, dtype=torch.float64)
        self.prediction = (self.y + 1 + torch.randint(9, shape, generator=draw)) % 10

    def piece(self, item: Item) -> Piece:
        """What working on ``item`` ends with; examples come to their end in some order."""
        rows = item.rows[torch.randperm(len(item.rows), generator=torch.Generator().manual_seed(int(item.rows.sum())))]
        ids, none = self.ids[rows], torch.zeros(len(rows), dtype=torch.bool)
        if item.attack == CLEAN:
            wrong, named = self.wrong[rows], rows[self.corrupt[rows]]
            prediction = torch.where(wrong, (self.y[rows] + 1) % 10, self.y[rows])
            corrupt = {int(self.ids[row]): f"image {row}" for row in named.tolist()}
            distance = torch.zeros(len(rows), dtype=torch.float64)
            piece = Piece(-1, CLEAN, ids, wrong, prediction, distance, none, self.clean_finite[rows], corrupt=corrupt)
        else:
            at = (item.chain, CHAINS[item.chain].index(item.attack), rows)
            prediction = torch.where(self.fooled[at], self.prediction[at], self.y[rows])
            distance = torch.where(self.fooled[at], self.distance[at], 0)
            outside = self.outside[at] & ~self.fooled[at]
            piece = Piece(item.chain, item.attack, ids, self.fooled[at], prediction, distance, outside, self.finite[at])
        return piece.costing({"forwards": 3 * len(rows), "backwards": 2 * len(rows), "seconds": 0.25 * len(rows)})

    def first(self, chain: int, row: int) -> int | None:
        """The number of the attack that is first to fool an example."""
        return next((k for k in range(len(CHAINS[chain])) if self.fooled[chain, k, row]), None)

    def by(self, chain: int, attacks: int = 4) -> list[str]:
        found = []
        for row in range(N):
            k = self.first(chain, row)
            stands = k is None or k >= attacks
            found.append(CLEAN if self.wrong[row] else "" if stands else CHAINS[chain][k])
        return found

    def met(self, chain: int, row: int) -> range:
        """The numbers of the attacks an example goes through."""
        k = self.first(chain, row)
        return range(0) if self.wrong[row] else range(len(CHAINS[chain]) if k is None else k + 1)


@dataclass
class Play:
    """Work on a ledger in an order that ``seed`` draws, every item checked as it goes out."""

    table: Table
    seed: int
    size: int
    workers: int = 1
    lockstep: bool = False
    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    given: list[Item] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.table.ids, CHAINS, self.lockstep)
        self.random, self.away, self.overdue = random.Random(self.seed), list[Item](), list[Item]()

    def turns(self, most: int = 100_000) -> "Play":
        """Until all is done, or for ``most`` turns."""
        full = False
        for _ in range(most):
            if not self.away and full:
                break
            if not full and len(self.away) < self.workers and self.random.random() < 0.7:
                item = self.ledger.take(self.size, self.workers)
                full = item is None
                if item:
                    self.checked(item)
                    self.away.append(item)
            elif self.away:
                self.end(self.away.pop(self.random.randrange(len(self.away))))
                full = False
        return self

    def end(self, item: Item) -> None:
        chance = self.random.random()
        if chance < self.lost:
            self.ledger.give_back(item)
        elif chance < self.lost + self.late:
            self.ledger.give_back(item)
            self.overdue.append(item)
        else:
            self.deliver(self.table.piece(item))
        if self.overdue and self.random.random() < 0.5:
            self.deliver(self.table.piece(self.overdue.pop()))
        if self.pieces and self.random.random() < self.twice:
            self.deliver(self.random.choice(self.pieces))

    def deliver(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.ledger.add(piece)

    def checked(self, item: Item) -> None:
        rows = item.rows.tolist()
        assert 0 < len(rows) <= self.size
        assert rows == sorted(set(rows))
        assert item.attack == CLEAN or not self.table.wrong[item.rows].any()
        self.given.append(item)
        if self.lockstep:
            assert all(other.attack == item.attack for other in self.away if other.chain in (-1, item.chain))
        if not self.late:  # its worker was given up, and works on
            for other in self.away:
                assert other.chain != item.chain or set(rows).isdisjoint(other.rows.tolist())

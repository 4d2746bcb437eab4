"""Who is through with which attack: pieces come in, items of work go out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.evaluation.piece import CLEAN, Piece


@dataclass(frozen=True)
class Item:
    """Work: attack ``attack`` of chain ``chain`` (-1: the clean step) on the examples at ``rows``."""

    chain: int
    attack: str
    rows: Tensor


class Ledger:
    """``n`` examples and, for each chain, the names of its attacks in the order they are tried.

    An example goes on to the next attack of a chain once it has withstood the one before; which examples are in one
    item changes no verdict, so items may be cut in any way, done anywhere, and done twice.  In ``lockstep`` an attack
    begins when the one before has ended on all, with items that follow each other in order, as AutoAttack's authors do.
    """

    def __init__(self, ids: Tensor, chains: Sequence[Sequence[str]], lockstep: bool = False) -> None:
        self.ids, self.chains, self._lockstep = ids, [tuple(chain) for chain in chains], lockstep
        n, t = len(ids), len(self.chains)
        self._row = {int(i): row for row, i in enumerate(ids.tolist())}
        self.clean = torch.full((n,), -1)
        self.right = torch.zeros(n, dtype=torch.bool)
        self.finite = torch.ones(n, dtype=torch.bool)
        self.corrupt: dict[int, str] = {}
        self.fooled_by = torch.full((t, n), -1)
        self.withstood = torch.zeros(t, n, dtype=torch.int64)
        self.attacked = torch.full((t, n), -1)
        self.distance = torch.zeros(t, n, dtype=torch.float64)
        self.outside = [0] * t
        self.costs: dict[tuple[int, str], Piece] = {}
        self._busy = torch.zeros(t + 1, n, dtype=torch.bool)

    def rows(self, ids: Tensor) -> Tensor:
        return torch.tensor([self._row[i] for i in ids.tolist()], dtype=torch.int64)

    def place(self, piece: Piece) -> tuple[int, int]:
        """``(chain, number of the attack in it)``: pieces of one chain are added in this order."""
        return piece.chain, 0 if piece.attack == CLEAN else self.chains[piece.chain].index(piece.attack)

    def add(self, piece: Piece) -> None:
        """Write a piece down.  What is known already is left alone."""
        rows, t = self.rows(piece.ids), piece.chain
        fresh = self._meets(t, piece.attack, rows)
        self._busy[t, rows[fresh]] = False
        self._spend(piece)
        self.finite[rows[fresh]] &= piece.finite[fresh]
        if piece.attack == CLEAN:
            new, prediction = rows[fresh], piece.prediction[fresh]
            self.clean[new], self.right[new] = prediction, ~piece.fooled[fresh]
            self.attacked[:, new] = torch.where(self.fooled_by[:, new] < 0, prediction, self.attacked[:, new])
            self.corrupt.update(piece.corrupt)
            return
        place = self.place(piece)[1]
        beaten, held = rows[fresh & piece.fooled], rows[fresh & ~piece.fooled]
        self.fooled_by[t, beaten] = place
        self.attacked[t, beaten] = piece.prediction[fresh & piece.fooled]
        self.distance[t, beaten] = piece.distance[fresh & piece.fooled]
        self.withstood[t, held] = place + 1
        self.outside[t] += int(piece.outside[fresh].sum())

    def take(self, size: int, workers: int = 1) -> Item | None:
        """Up to ``size`` examples that wait for the same attack, the earliest there is; None if nothing waits.

        Where ``workers`` share the work, each gets two items or more of what is left of an attack, or, where that would
        be less than a quarter of ``size`` (a batch, whose every step costs much the same however few are in it), one.
        """
        for chain, attack, waiting, there in self._stages():
            rows = waiting.nonzero()[:, 0]
            if not len(rows):
                continue
            if workers > 1 and not self._lockstep:
                each = there / workers
                rows = rows[: math.ceil(each / 2 if each >= size / 2 else each)]
            item = Item(chain, attack, rows[:size])
            self._busy[chain, item.rows] = True
            return item
        return None

    def waiting(self, item: Item) -> bool:
        """Whether any of its examples still wait for its attack."""
        return bool(self._meets(item.chain, item.attack, item.rows).any())

    def reserve(self, item: Item) -> None:
        """It is being worked on: those of its examples that wait for it go out with no other until their piece."""
        self._busy[item.chain, item.rows[self._meets(item.chain, item.attack, item.rows)]] = True

    def give_back(self, item: Item) -> None:
        """Its worker is gone: let another have it."""
        self._busy[item.chain, item.rows[self._meets(item.chain, item.attack, item.rows)]] = False

    def unfinished(self) -> list[tuple[int, str, int]]:
        """``(chain, attack, examples that have yet to meet it now)`` of every attack that some wait for or are at."""
        return [(chain, attack, there) for chain, attack, _, there in self._stages() if there]

    def ended(self) -> list[tuple[int, str, int]]:
        """``(chain, attack, examples left standing)`` of every attack that all examples are through with."""
        if bool((self.clean < 0).any()):
            return []
        through = [(-1, CLEAN, int(self.right.sum()))]
        for t, names in enumerate(self.chains):
            standing = self.right & (self.fooled_by[t] < 0)
            for place, name in enumerate(names):
                if bool((standing & (self.withstood[t] <= place)).any()):
                    break
                fooled = (self.fooled_by[t] >= 0) & (self.fooled_by[t] <= place)
                through.append((t, name, int((self.right & ~fooled).sum())))
        return through

    def robust(self, chain: int, attacks: int | None = None) -> Tensor:
        """``(n,) bool``: classified rightly, and by none of the chain's first ``attacks`` fooled."""
        by = self.fooled_by[chain]
        fooled = (by >= 0) & (by < (len(self.chains[chain]) if attacks is None else attacks))
        return self.right & ~fooled

    def by(self, chain: int, attacks: int | None = None) -> list[str]:
        """Of each example the attack that fooled it; ``"clean"`` where it is wrong as it is, ``""`` where it stands."""
        names, robust = self.chains[chain], self.robust(chain, attacks).tolist()
        return [
            "" if stands else CLEAN if k < 0 else names[k]
            for stands, k in zip(robust, self.fooled_by[chain].tolist(), strict=True)
        ]

    def _meets(self, chain: int, attack: str, rows: Tensor) -> Tensor:
        """Which of ``rows`` have ``attack`` before them next, as far as is known."""
        if attack == CLEAN:
            return self.clean[rows] < 0
        through = self.withstood[chain, rows] == self.chains[chain].index(attack)
        return through & (self.fooled_by[chain, rows] < 0) & (self.right[rows] | (self.clean[rows] < 0))

    def _stages(self) -> list[tuple[int, str, Tensor, int]]:
        """``(chain, attack, who waits for it, how many wait or are at it)``, in order."""
        unseen = self.clean < 0
        stages = [(-1, CLEAN, unseen & ~self._busy[-1], int(unseen.sum()))]
        if self._lockstep and unseen.any():
            return stages
        for t, names in enumerate(self.chains):
            standing = self.right & (self.fooled_by[t] < 0)
            for place, name in enumerate(names):
                here = standing & (self.withstood[t] == place)
                stages.append((t, name, here & ~self._busy[t], int(here.sum())))
                if self._lockstep and here.any():
                    break
        return stages

    def _spend(self, piece: Piece) -> None:
        key = (piece.chain, piece.attack)
        before = self.costs.get(key, Piece.empty(*key))
        self.costs[key] = Piece.joined([before, Piece.empty(*key).costing(piece.cost)])

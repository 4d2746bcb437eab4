"""Iterative attacks as rows: each example walks on its own, leaves when it is fooled or done, and makes room.

A search holds no state.  All it knows of an example is a row of ``Rows``, so rows can be dropped, joined, moved to
another machine or written to disk between two steps, and an example's walk is the same whoever walks beside it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from trainers import noise
from trainers.attacks.draws import Draws, Keyed
from trainers.modes import frozen, mode, outside_inference
from trainers.threat import Threat, per_example
from trainers.types import Batch, Model

Rows = dict[str, Tensor]
"""Tensors whose first dimension is the example.  Every search has these:

``x, y``: the example; ``key``: what it draws its random numbers from; ``part``: which of the search's tries this is;
``won``: a point inside the threat is misclassified, and ``found`` is the last such one (``x`` before that); ``over``:
this part has nothing left to do.  A search leaves what else there is, such as a walk's ``id``, where it is.
"""


class Search(Protocol):
    """An attack that can be walked: ``step`` costs about one forward, and perhaps one backward, of its rows."""

    @property
    def threat(self) -> Threat: ...

    def parts(self, classes: int) -> int:
        """How many tries (targets × restarts) an example gets, for a model of so many classes."""
        ...

    def start(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        """Rows at the beginning of ``part: (N,) int64``; given are ``x, y, key, part``, and from the second part on
        whatever the part before left."""
        ...

    def step(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        """One step on.  Rows that are over may be moved too, but keep ``won``, ``found`` and ``over``."""
        ...


class Walk:
    """Up to ``size`` examples at a time on their way through ``search``; iterate to get, after each look, the rows that
    are at their end: often none.

    ``source`` gives batches whose ``keys`` are ids; ``streams`` makes of ids the keys that random numbers are drawn
    from.  Examples that are fooled leave at once, others go on with their next part in their place, and new ones come
    in when a quarter of the places is free.  ``lockstep`` is the order of AutoAttack's authors: nobody joins before
    all have left, parts begin together, and a new batch draws from a new generator (``draws`` is called again).

    ``every`` is how many steps are taken between two looks at who is over, each of which waits for a GPU.
    ``rows`` is all there is to know of those on their way: write it down, and a walk made with it goes on from there.
    """

    def __init__(
        self,
        search: Search,
        model: Model,
        source: Iterable[Batch],
        size: int,
        classes: int,
        streams: Callable[[Tensor], Tensor],
        draws: Callable[[], Draws] = Keyed,
        lockstep: bool = False,
        every: int = 1,
        rows: Rows | None = None,
    ) -> None:
        self._search, self._model, self._source = search, model, Source(source)
        self._size, self._parts, self._streams = size, search.parts(classes), streams
        self._make_draws, self._draws = draws, draws()
        self._lockstep, self._every = lockstep, every
        self._waiting = list[Rows]()
        self.rows = rows

    def __iter__(self) -> Iterator[Rows]:
        while self._fill():
            assert self.rows is not None
            for _ in range(self._every):
                self.rows = self._search.step(self._model, self.rows, self._draws)
            yield self._sort_out(self.rows)

    def _fill(self) -> bool:
        """Let examples in where there is room; False when nobody is left."""
        here = 0 if self.rows is None else len(self.rows["id"])
        if here == 0 and self._waiting:
            waiting, self._waiting = join(self._waiting), []
            order = waiting["id"].argsort()
            self.rows = self._again({name: value[order] for name, value in waiting.items()})
            return True
        room = self._size - here
        if here == 0 or (not self._lockstep and 4 * room >= self._size):
            batch = self._source.take(room)
            if batch is not None:
                self._draws = self._make_draws()
                x, y, ids = batch
                first = {"x": x, "y": y, "id": ids, "key": self._streams(ids), "part": torch.zeros_like(y)}
                new = self._search.start(self._model, first, self._draws)
                self.rows = new if self.rows is None else join([self.rows, new])
                return True
        return here > 0

    def _again(self, rows: Rows) -> Rows:
        """The next part of each."""
        return self._search.start(self._model, rows | {"part": rows["part"] + 1}, self._draws)

    def _sort_out(self, rows: Rows) -> Rows:
        """Take out and return who is at the end; let who has parts left begin the next."""
        over = rows["over"] | rows["won"]
        ended = rows["won"] | (over & (rows["part"] + 1 >= self._parts))
        if not over.any():
            return select(rows, ended)
        again = select(rows, over & ~ended)
        self.rows = select(rows, ~over)
        if len(again["id"]) and self._lockstep:
            self._waiting.append(again)
        elif len(again["id"]):
            self.rows = join([self.rows, self._again(again)])
        return select(rows, ended)


class Source:
    """Batches of any size, handed out in others."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches, self._held = iter(batches), list[Batch]()

    def take(self, n: int) -> Batch | None:
        """Up to ``n`` examples; None at the end."""
        while sum(len(batch.y) for batch in self._held) < n:
            batch = next(self._batches, None)
            if batch is None:
                break
            self._held.append(batch)
        if not self._held:
            return None
        x, y, keys = (torch.cat(parts) for parts in zip(*self._held, strict=True))
        self._held = [Batch(x[n:], y[n:], keys[n:])] if len(y) > n else []
        return Batch(x[:n], y[:n], keys[:n])


def select(rows: Mapping[str, Tensor], mask: Tensor) -> Rows:
    index = mask.nonzero()[:, 0]
    return {name: value[index] for name, value in rows.items()}


def join(rows: list[Rows]) -> Rows:
    return {name: torch.cat([some[name] for some in rows]) for name in rows[0]}


def where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` for the examples of ``mask: (N,)``, else ``old``."""
    return torch.where(per_example(mask, old), new, old)


def misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """``(N,) bool``: the largest logit is another class's, or some logit is not a number."""
    return (logits.argmax(1) != y) | logits.isnan().any(1)


def attack(
    search: Search, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None, draws: Draws | None = None
) -> Tensor:
    """A whole walk of one batch: of each example the point it was fooled at, else ``x``.

    With ``draws`` the batch walks in lockstep and draws from that; without, each example from its own stream.
    """
    x, y = outside_inference(x), outside_inference(y)
    keys = noise.fresh(len(x), x.device) if keys is None else keys
    x_adv = x.clone()
    with mode(model, train=False), frozen(model):
        with torch.no_grad():
            logits = model(x)
        rows = (~misclassified(logits, y)).nonzero()[:, 0]
        if len(rows):
            source, own = [Batch(x[rows], y[rows], rows)], keys
            walk = Walk(
                search,
                model,
                source,
                size=len(rows),
                classes=logits.shape[1],
                streams=lambda ids: own[ids],
                draws=Keyed if draws is None else lambda: draws,
                lockstep=draws is not None,
            )
            for ended in walk:
                x_adv[ended["id"]] = where(ended["won"], ended["found"], ended["x"])
    return x_adv

"""One attack on some examples: what an evaluation schedules, writes down and takes up again."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from trainers import noise
from trainers.attacks.cascade import stream
from trainers.attacks.draws import Sequential
from trainers.attacks.search import Rows, Search, Walk, misclassified
from trainers.modes import frozen, full_float32, mode
from trainers.types import Attack, Batch, Model

SLACK = 1e-6
"""How far outside the threat, in its norm and as a share of ``eps`` where that is above 1, rounding may put a point."""


@dataclass(frozen=True)
class Effort:
    """How the examples are run, which in ``fast`` mode changes no verdict.

    ``seed``: of every random draw.  ``batch_size``: examples in the model at once.  ``reference``: in the order, and
    with the random numbers, of AutoAttack's authors, where a verdict depends on the batch the example is in.
    ``every``: steps between two looks at who is over.
    """

    seed: int = 0
    batch_size: int = 64
    reference: bool = False
    every: int = 1

    @property
    def item_size(self) -> int:
        """How many examples make an item of work: enough that a batch is filled up from those that wait."""
        return self.batch_size if self.reference else 4 * self.batch_size

    def __post_init__(self) -> None:
        for name in ("batch_size", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


class Ended(NamedTuple):
    """Examples an attack is done with, ``(N, ...)`` each: ``fooled`` says that ``x_adv`` is misclassified, inside the
    threat and the cube, seen in a forward of its own; else ``x_adv`` is the image itself.  ``prediction`` is the class
    of ``x_adv``, ``outside`` that the attack claimed a point which is not inside, and ``finite`` that the logits at the
    point it claimed are numbers."""

    ids: Tensor
    fooled: Tensor
    x_adv: Tensor
    prediction: Tensor
    distance: Tensor
    outside: Tensor
    finite: Tensor


class AttackRun:
    """``attack`` on the examples of ``batches``, all classified rightly, whose ``keys`` are ids; iterate for ``Ended``,
    or None after steps in which nobody came to an end.

    ``rows`` can be written down between the two, and a run made with it and the examples not yet begun goes on;
    it is None where an attack has no middle.
    """

    def __init__(
        self,
        attack: Attack,
        model: Model,
        batches: Iterable[Batch],
        classes: int,
        effort: Effort,
        rows: Rows | None = None,
    ) -> None:
        self._attack, self._model, self._batches, self._effort = attack, model, batches, effort
        self._walk: Walk | None = None
        if hasattr(attack, "step") and hasattr(attack, "start"):
            search = cast(Search, attack)
            if effort.reference:
                draws = lambda: Sequential(effort.seed)  # noqa: E731
                self._walk = Walk(search, model, batches, effort.batch_size, classes, _same, draws, lockstep=True)
            else:
                self._walk = Walk(
                    search, model, batches, effort.batch_size, classes, self._streams, every=effort.every, rows=rows
                )

    @property
    def rows(self) -> Rows | None:
        return None if self._walk is None or self._effort.reference else self._walk.rows

    def _streams(self, ids: Tensor) -> Tensor:
        return stream(noise.stream(ids, self._effort.seed), self._attack.name)

    def __iter__(self) -> Iterator[Ended | None]:
        with mode(self._model, train=False), frozen(self._model):
            if self._walk is not None:
                for rows in self._walk:
                    some = len(rows["id"]) > 0
                    yield self._judged(rows["id"], rows["x"], rows["y"], rows["found"], rows["won"]) if some else None
            else:
                for batch in self._batches:
                    found = self._attack(self._model, batch.x, batch.y, self._streams(batch.keys))
                    yield self._judged(batch.keys, batch.x, batch.y, found, torch.ones_like(batch.y, dtype=torch.bool))

    @torch.no_grad()
    def _judged(self, ids: Tensor, x: Tensor, y: Tensor, found: Tensor, claimed: Tensor) -> Ended:
        threat = self._attack.threat  # type: ignore[attr-defined]
        distance = threat.distance(found, x)
        in_cube = ((found >= 0) & (found <= 1)).flatten(1).all(1)
        inside = in_cube & (distance <= threat.eps + SLACK * max(1.0, threat.eps))
        with full_float32():
            logits = self._model(found)
        fooled = claimed & inside & misclassified(logits, y)
        x_adv = torch.where(fooled.reshape(-1, *[1] * (x.dim() - 1)), found, x)
        prediction = torch.where(fooled, logits.argmax(1), y)
        finite = logits.isfinite().all(1)
        return Ended(ids, fooled, x_adv, prediction, torch.where(fooled, distance, 0), claimed & ~inside, finite)


def _same(ids: Tensor) -> Tensor:
    return ids

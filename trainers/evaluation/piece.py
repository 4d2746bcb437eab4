"""What has become known of some examples: how they are classified, or how one attack ended on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

CLEAN = "clean"
"""The name of the step before all attacks: the images as they are."""


@dataclass(frozen=True)
class Piece:
    """Of the examples ``ids``, under attack ``attack`` of the chain ``chain`` (-1 for ``CLEAN``), ``(N,)`` each:

    ``fooled``: wrong now (misclassified, inside threat and cube, seen in a forward of its own); ``prediction``: the
    class then, the clean one where it was not fooled; ``distance``: of the adversarial example, in the threat's norm;
    ``outside``: the attack claimed a point that is not inside; ``finite``: the logits are numbers.
    ``forwards, backwards``: of single examples; ``corrupt``: names of images that could not be read.
    """

    chain: int
    attack: str
    ids: Tensor
    fooled: Tensor
    prediction: Tensor
    distance: Tensor
    outside: Tensor
    finite: Tensor
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    corrupt: Mapping[int, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON holds it; ``of_plain`` gives it back."""
        rows = {name: getattr(self, name).tolist() for name in _ROWS}
        return {"chain": self.chain, "attack": self.attack, **rows, **self.cost, "corrupt": dict(self.corrupt)}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        rows: dict[str, Any] = {name: torch.tensor(plain[name], dtype=kind) for name, kind in _ROWS.items()}
        corrupt = {int(i): name for i, name in plain["corrupt"].items()}
        rest = {name: plain[name] for name in ("chain", "attack", *_COST)}
        return cls(**rest, **rows, corrupt=corrupt)

    @classmethod
    def joined(cls, pieces: Sequence["Piece"]) -> "Piece":
        """Several of one attack as one."""
        first = pieces[0]
        rows: dict[str, Any] = {name: torch.cat([getattr(piece, name) for piece in pieces]) for name in _ROWS}
        corrupt = {i: name for piece in pieces for i, name in piece.corrupt.items()}
        whole = cls(first.chain, first.attack, **rows, corrupt=corrupt)
        return whole.costing({name: sum(piece.cost[name] for piece in pieces) for name in _COST})

    @property
    def cost(self) -> dict[str, float]:
        """``forwards``, ``backwards`` (of single examples) and ``seconds``."""
        return {name: getattr(self, name) for name in _COST}

    def costing(self, cost: Mapping[str, float]) -> Self:
        """The same, for ``forwards``, ``backwards`` and ``seconds``."""
        known: dict[str, Any] = dict(cost)
        return replace(self, **known)

    @classmethod
    def empty(cls, chain: int, attack: str) -> "Piece":
        rows: dict[str, Any] = {name: torch.zeros(0, dtype=kind) for name, kind in _ROWS.items()}
        return cls(chain, attack, **rows)


_ROWS = {
    "ids": torch.int64,
    "fooled": torch.bool,
    "prediction": torch.int64,
    "distance": torch.float64,
    "outside": torch.bool,
    "finite": torch.bool,
}
_COST = ("forwards", "backwards", "seconds")

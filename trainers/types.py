"""The one law: everything takes ``(model, x, y)``; what comes back tells you what it is."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from torch import Tensor, nn

Model = nn.Module
Metrics = dict[str, Tensor]
Loss = Callable[[Tensor], Tensor]
"""Logits ``(N, K)`` to one loss an example ``(N,)``: what an attack maximises."""


class Batch(NamedTuple):
    """``x``: images ``(N, C, H, W)`` in [0, 1]; ``y``: classes ``(N,) int64`` or soft targets ``(N, K)``;
    ``keys``: ``(N,) int64``, the examples' ids, which key every random draw made for them."""

    x: Tensor
    y: Tensor
    keys: Tensor


class Attack(Protocol):
    """An image batch inside the threat, as wrong as it can make the model.  ``name`` is what tables call it."""

    @property
    def name(self) -> str: ...

    def __call__(self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor: ...


class Objective(Protocol):
    """The scalar loss to descend, and metrics to watch (0-dim tensors, detached, on the device).

    ``keys`` are drawn from as they are: whoever trains mixes the seed and the epoch into the examples' ids
    (``noise.stream``), or every epoch would draw the same noise.
    ``epoch`` is the fractional epoch and drives ramps and warm-ups; left out, every schedule is at its end.
    ``second_order`` says that the loss holds an input gradient, ``mode`` in which mode the network trains:
    ``"train"``, or ``"eval"`` for frozen BatchNorm statistics and no dropout.
    """

    @property
    def second_order(self) -> bool: ...

    @property
    def mode(self) -> str: ...

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor | None = None,
        epoch: float | Tensor = ...,
    ) -> tuple[Tensor, Metrics]: ...


class Penalty(Protocol):
    """A cost ``(N,)`` on the input gradient ``(N, C, H, W)`` of each example."""

    def __call__(self, gradient: Tensor, x: Tensor) -> Tensor: ...


class Probe(Protocol):
    """A measurement of a model: yields ``(name, value)``, means over every example of every rank."""

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]: ...

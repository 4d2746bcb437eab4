"""Which example comes when: orders keyed by (seed, epoch) and by the examples' ids, so that leaving one example out
moves no other before or behind its neighbours.

All of it is arithmetic on indices; nothing is read.  So a resume at step ``k`` starts at row ``k`` of the order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers import noise

EPOCH, HELD_OUT, LIMIT, SHARDS, AUGMENT, SUBSTITUTE = range(1, 7)


def shuffled(ids: Tensor, seed: int, epoch: int) -> Tensor:
    """Positions of ``ids`` in the order of one keyed random number an id: a uniform permutation."""
    return noise.stream(ids, seed, EPOCH, epoch).argsort(stable=True)


def nearby(
    positions: Tensor, ids: Tensor, starts: Sequence[int], buffer: int, lanes: int, seed: int, epoch: int
) -> Tensor:
    """An order that reads shards nearly in sequence: ``(n // lanes, lanes)`` positions.

    Shards come in keyed order, end to end; that sequence is cut into ``lanes`` equal stretches, read side by side.
    Inside a stretch example ``i`` is sorted by ``i + buffer · u_i``, ``u_i`` uniform in [0, 1) and keyed by its id:
    none is taken more than ``buffer`` places from where it lies, so a reader needs to remember ``buffer``
    examples at most, whatever the size of the set.
    """
    shard = torch.searchsorted(torch.tensor(starts), positions, right=True) - 1
    rank = torch.empty(len(starts), dtype=torch.int64)
    rank[noise.permutation(len(starts), seed, SHARDS, epoch)] = torch.arange(len(starts))
    sequence = rank[shard].argsort(stable=True)
    length = len(positions) // lanes
    stretches = sequence[: length * lanes].reshape(lanes, length)
    drawn = noise.uniform(noise.stream(ids[stretches.reshape(-1)], seed, EPOCH, epoch), (), torch.float64)
    place = torch.arange(length, dtype=torch.float64) + buffer * drawn.reshape(lanes, length)
    return positions[stretches.gather(1, place.argsort(dim=1, stable=True))].T


def held_out(ids: Tensor, starts: Sequence[int] | None, seed: int, *counts: int) -> list[Tensor]:
    """Splits positions into ``counts`` keyed random examples each, and the rest; each sorted.

    Where the set comes in shards, whole shards are taken in keyed order (the last one in part), so that held-out
    examples can be read without passing over the training set.
    """
    if starts is None:
        order = noise.stream(ids, seed, HELD_OUT).argsort(stable=True)
    else:
        ends = [*starts[1:], len(ids)]
        shards = noise.permutation(len(starts), seed, HELD_OUT).tolist()
        order = torch.cat([torch.arange(starts[s], ends[s]) for s in shards])
    parts = order.split([*counts, len(ids) - sum(counts)])
    return [part.sort().values for part in parts]


def limited(positions: Tensor, ids: Tensor, limit: int | None, seed: int) -> Tensor:
    """``limit`` keyed random positions, sorted; a smaller limit gives a subset of a larger one's."""
    if limit is None or limit >= len(positions):
        return positions
    keyed = noise.stream(ids[positions], seed, LIMIT).argsort(stable=True)
    return positions[keyed[:limit]].sort().values

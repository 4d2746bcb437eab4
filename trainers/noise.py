"""Counter-based random numbers: each example draws from its own stream.

A draw is a pure function of ``(key, parts, position)``, so it does not depend on batch size, order, world size,
device or on what was drawn before.  Source: the SplitMix64 output function (Steele, Lea and Flood, *Fast
splittable pseudorandom number generators*, OOPSLA 2014), applied to key and counter.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch shifts signed integers arithmetically."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)


def _signed(value: int) -> int:
    """``value`` modulo 2**64, as a signed 64-bit integer."""
    return (value + 2**63) % 2**64 - 2**63


def stream(keys: Tensor, *parts: int | Tensor) -> Tensor:
    """Keys ``(N,) int64`` of the independent stream named by ``parts`` (a seed, an epoch, a restart ...), each one
    number for all or ``(N,) int64``."""
    for part in parts:
        step = (part + 1) * _GOLDEN if isinstance(part, Tensor) else _signed(_GOLDEN * (part + 1))
        keys = _mix(keys + step)
    return keys


def fresh(n: int, device: torch.device) -> Tensor:
    """``(n,)`` keys from torch's global generator, for callers that have no example ids."""
    return torch.randint(-(2**63), 2**63 - 1, (n,)).to(device)


def _bits(keys: Tensor, n: int) -> Tensor:
    counter = torch.arange(1, n + 1, device=keys.device)
    return _mix(_mix(keys)[:, None] + counter * _GOLDEN)


def uniform(keys: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """``(N, *shape)`` uniform in [0, 1), 24 random bits each."""
    bits = _shift(_bits(keys, math.prod(shape)), 40)
    return (bits.to(torch.float32) * 2.0**-24).to(dtype).reshape(len(keys), *shape)


def normal(keys: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """``(N, *shape)`` standard normal, by the Box-Muller transform."""
    n = math.prod(shape)
    u = uniform(keys, (2 * n,), dtype)
    radius = (-2 * (1 - u[:, :n]).log()).sqrt()
    return (radius * (2 * math.pi * u[:, n:]).cos()).reshape(len(keys), *shape)


def integers(keys: Tensor, high: int) -> Tensor:
    """``(N,)`` integers in [0, high); the bias is below ``high / 2**40``."""
    return _shift(_bits(keys, 1)[:, 0], 24) % high


def permutation(n: int, *parts: int) -> Tensor:
    """A permutation of ``range(n)`` fixed by ``parts``: sorting by one random key an item."""
    return _mix(stream(torch.arange(n), *parts)).argsort(stable=True)

"""The nearest point of an L1 ball and the image cube, and uniform random points of the ball."""

import torch
from torch import Tensor

from trainers import noise


def shrinkage(delta: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    """By how much each ``|delta_i|`` must shrink for ``x + delta`` to become the nearest point of ball and cube.

    ``delta, x: (N, ...)`` with ``x`` in [0, 1], ``eps: (N,)``; the result is like ``delta``, in [0, |delta|].

    The projection of ``delta`` onto ``{d: ||d||_1 <= eps, 0 <= x + d <= 1}`` is ``sign(delta_i) · (|delta_i| - s_i)``
    with ``s_i = clamp(λ, o_i, |delta_i|)``, where ``o_i`` is how far ``x_i + delta_i`` lies outside the cube and
    ``λ >= 0`` is the smallest that makes ``Σ |delta_i| - s_i <= eps``.  ``Σ s_i`` rises in ``λ`` in straight pieces
    between the values of ``o`` and ``|delta|``, so ``λ`` is exact once these are sorted.

    Source: Croce and Hein 2021, *Mind the box* (2103.01208), proposition 2.1.  The order of the sums is that of the
    authors' code, so that their last bits come out; where ``λ`` lies before the second value of all, theirs takes the
    slope of the piece after.
    """
    shape, delta, x = delta.shape, delta.flatten(1), x.flatten(1)
    size = delta.abs()
    outside = (-torch.minimum(1 - x - delta, x + delta)).clamp_min(0)
    least, needed = outside.sum(1, keepdim=True), size.sum(1, keepdim=True)
    needed = needed - eps[:, None]

    ends, which = torch.cat([outside, size], 1).sort(dim=1)
    slope = torch.where(which < size.shape[1], 1, -1).to(size.dtype).cumsum(1)
    gained = ((ends[:, 1:] - ends[:, :-1]) * slope[:, :-1]).cumsum(1)
    reached = torch.cat([least, least + gained], 1)
    piece = ((reached < needed).sum(1, keepdim=True) - 1).clamp_min(0)
    rest = (needed - reached.gather(1, piece)) / slope.gather(1, piece).clamp_min(1)
    level = torch.where(needed > least, rest + ends.gather(1, piece), 0)
    return torch.minimum(torch.maximum(outside, level), size).reshape(shape)


def nearest(delta: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    """The point of ball and cube nearest to ``x + delta``; a coordinate that goes back all the way is ``x``'s."""
    return x + delta.sign() * (delta.abs() - shrinkage(delta, x, eps))


def corrected(point: Tensor, delta: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    """``point + (nearest - (x + delta))``: what the authors' code does, and the same as ``nearest`` but for rounding.

    A coordinate that goes back to ``x`` may end one bit away from it, which their attacks take for a change: they count
    it, or blow it up to a perturbation of its own.  So to fool the same examples it must be done in the same way.
    """
    return point - delta.sign() * shrinkage(delta, x, eps)


def inside(point: Tensor, x: Tensor, eps: float) -> Tensor:
    """``point``, drawn towards ``x`` where rounding has left it outside ball or cube: float32 adds up 1e-7 a pixel.

    What lies within rounding of the sphere is drawn inside too, so that whoever adds it up again finds no more than
    ``eps``.
    """
    delta = point - x
    length = delta.flatten(1).abs().sum(1).reshape(-1, *[1] * (x.dim() - 1))
    least = eps * (1 - 8 * torch.finfo(x.dtype).eps)
    return torch.where(length > least, x + delta * (least / length), point).clamp(0, 1)


def uniform(keys: Tensor, like: Tensor) -> Tensor:
    """Uniform in the unit L1 ball, shaped as ``like: (N, ...)``; keyed by ``keys: (N,) int64``.

    ``d_i = ±e_i / (e_0 + ... + e_D)`` with standard exponential ``e``: all sizes together with the slack are uniform
    on the simplex.  Source: Devroye 1986, *Non-Uniform Random Variate Generation*, chapter XI.
    """
    drawn = noise.uniform(keys, (2 * like[0].numel() + 1,), like.dtype)
    signs, sizes = drawn[:, : like[0].numel()], -(1 - drawn[:, like[0].numel() :]).log()
    total = sizes.sum(1, keepdim=True).clamp_min(torch.finfo(like.dtype).tiny)
    return (torch.where(signs < 0.5, -1, 1) * sizes[:, 1:] / total).reshape(like.shape)

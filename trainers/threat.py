"""Threats: the set of perturbations an attacker may choose from, in pixel units.

A threat knows its own ball and nothing of models: the steepest ascent direction, the projection, a random start.
"""

import math
import sys
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from trainers import l1_ball, noise


class Threat(Protocol):
    """A norm ball of radius ``eps`` (pixel units, images in [0, 1]) intersected with the image cube."""

    norm: ClassVar[str]

    @property
    def eps(self) -> float: ...

    def ascent(self, gradient: Tensor) -> Tensor:
        """The direction ``d``, ``||d|| <= 1`` in the threat's norm, that maximises ``<gradient, d>``."""
        ...

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A point of ball and cube near ``x_adv``; ``x_adv`` itself if it is one."""
        ...

    def random_start(self, x: Tensor, keys: Tensor) -> Tensor:
        """A random point of ball and cube, drawn from ``keys: (N,) int64``."""
        ...

    def perturb(self, x: Tensor, keys: Tensor, radius: float) -> Tensor:
        """A random point of the ball of ``radius`` round ``x``, which may lie outside the cube."""
        ...

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """``||x_adv - x||`` of each example, ``(N,)``."""
        ...

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """``max <gradient, d>`` over ``||d|| <= 1``: what a unit of ``eps`` gains on a linear loss.  ``(N,)``."""
        ...

    def scaled(self, factor: float) -> Self:
        """The same threat with ``factor · eps``."""
        ...

    def check(self, shape: tuple[int, ...]) -> None:
        """``ValueError`` if ``eps`` makes no sense for images of ``shape`` (C, H, W)."""
        ...


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """``(N,)`` shaped to broadcast over ``like: (N, ...)``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class Linf:
    """``max |x_adv - x| <= eps``.  ``eps`` in [0, 1], written ``8/255``.

    Errors: ``ValueError`` for an ``eps`` outside [0, 1], where 8 was most likely meant as 8/255.
    """

    eps: float
    norm: ClassVar[str] = "Linf"

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1:
            raise ValueError(
                f"threat.eps={self.eps:g} is outside [0, 1]: Linf eps is in pixel units of images in [0, 1]; "
                f"write {self.eps:g}/255 if you meant {self.eps:g} of 255 grey levels"
            )

    def ascent(self, gradient: Tensor) -> Tensor:
        """``sign(g)``: the unit step of steepest ascent, zero where the gradient is zero or not a number."""
        return gradient.sign()

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest point of ball and cube (exact: both are boxes)."""
        return torch.minimum(torch.maximum(x_adv, x - self.eps), x + self.eps).clamp(0, 1)

    def random_start(self, x: Tensor, keys: Tensor) -> Tensor:
        """Uniform in the ball, then clipped to the cube."""
        return self.perturb(x, keys, self.eps).clamp(0, 1)

    def perturb(self, x: Tensor, keys: Tensor, radius: float) -> Tensor:
        """``x + U(-radius, radius)``, not clipped."""
        return x + (2 * noise.uniform(keys, x.shape[1:], x.dtype) - 1) * radius

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """``(N,)``."""
        return (x_adv - x).flatten(1).abs().amax(1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """``||g||_1``: what one unit of ``eps`` gains on a linear loss.  ``(N,)``."""
        return gradient.flatten(1).abs().sum(1)

    def scaled(self, factor: float) -> Self:
        return replace(self, eps=self.eps * factor)

    def check(self, shape: tuple[int, ...]) -> None:
        """Any image shape will do."""


@dataclass(frozen=True)
class L2:
    """``||x_adv - x||_2 <= eps``, the Euclidean norm over all of C, H, W.  ``eps`` in (0, sqrt(C·H·W)].

    ``project`` projects onto the ball, then clips to the cube, as the reference attacks do: clipping towards
    ``x`` in [0, 1] never leaves the ball, so the result is feasible.

    Errors: ``ValueError`` for an ``eps`` that is not above 0, and from ``check`` above the cube's diagonal.
    """

    eps: float
    norm: ClassVar[str] = "L2"

    def __post_init__(self) -> None:
        if not (0 < self.eps < math.inf):
            raise ValueError(f"threat.eps={self.eps:g} must be above 0 for L2; CIFAR-10 results use 0.5 or 128/255")

    def ascent(self, gradient: Tensor) -> Tensor:
        """``g / ||g||_2``, zero where the gradient is zero; what is not a number counts as zero.

        Divided by its largest entry first: a confident example's gradient is near 1e-30, and its square is 0.
        """
        tiny = torch.finfo(gradient.dtype).tiny
        gradient = gradient.nan_to_num(0)
        gradient = gradient / per_example(gradient.flatten(1).abs().amax(1).clamp_min(tiny), gradient)
        return gradient / per_example(self.dual_norm(gradient).clamp_min(tiny), gradient)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        shrink = (self.eps / delta.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(1)
        return (x + delta * per_example(shrink, x)).clamp(0, 1)

    def random_start(self, x: Tensor, keys: Tensor) -> Tensor:
        """Uniform in the ball, then clipped to the cube."""
        return self.perturb(x, keys, self.eps).clamp(0, 1)

    def perturb(self, x: Tensor, keys: Tensor, radius: float) -> Tensor:
        """Uniform in the ball of ``radius`` round ``x``: a Gaussian direction and ``U^(1/D)`` of the radius."""
        direction = noise.normal(keys, x.shape[1:], x.dtype)
        share = noise.uniform(noise.stream(keys, 1), (), x.dtype) ** (1 / x[0].numel())
        return x + self.ascent(direction) * per_example(share, x) * radius

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """``(N,)``."""
        return (x_adv - x).flatten(1).norm(dim=1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """``||g||_2``, its own dual.  ``(N,)``."""
        return gradient.flatten(1).norm(dim=1)

    def scaled(self, factor: float) -> Self:
        """A factor of 0 (a warm-up's first step) gives the smallest ball there is, since ``eps`` is above 0."""
        return replace(self, eps=max(self.eps * factor, sys.float_info.min))

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse an ``eps`` beyond the diagonal of the cube of ``shape`` (C, H, W): it would bound nothing."""
        diagonal = math.sqrt(math.prod(shape))
        if self.eps > diagonal:
            raise ValueError(
                f"threat.eps={self.eps:g} is above {diagonal:.4g}, the diagonal of {shape} images in [0, 1]: "
                "every image would be within reach; choose an L2 eps below it"
            )


@dataclass(frozen=True)
class L1:
    """``||x_adv - x||_1 <= eps``, the sum of absolute changes over all of C, H, W.  ``eps`` in (0, C·H·W].

    ``project`` gives the nearest point of ball and cube together, not of one after the other: clipped to the cube, a
    point of the sphere loses much of its norm.

    Errors: ``ValueError`` for an ``eps`` that is not above 0, and from ``check`` above the cube's L1 diameter.
    Source of the projection: Croce and Hein 2021, *Mind the box* (2103.01208), proposition 2.1.
    """

    eps: float
    norm: ClassVar[str] = "L1"

    def __post_init__(self) -> None:
        if not (0 < self.eps < math.inf):
            raise ValueError(f"threat.eps={self.eps:g} must be above 0 for L1; CIFAR-10 results use 12")

    def ascent(self, gradient: Tensor) -> Tensor:
        """``sign(g_i)`` at the first ``i`` of largest ``|g_i|``, else 0: the unit step changes one coordinate."""
        flat = gradient.nan_to_num(0).flatten(1)
        at = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter(1, at, flat.gather(1, at).sign()).reshape(gradient.shape)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest point of ball and cube, up to rounding."""
        eps = torch.full((len(x),), self.eps, dtype=x.dtype, device=x.device)
        return l1_ball.inside(l1_ball.nearest(x_adv - x, x, eps), x, self.eps)

    def random_start(self, x: Tensor, keys: Tensor) -> Tensor:
        """Uniform in the ball, then clipped to the cube."""
        return self.perturb(x, keys, self.eps).clamp(0, 1)

    def perturb(self, x: Tensor, keys: Tensor, radius: float) -> Tensor:
        """Uniform in the ball of ``radius`` round ``x``, not clipped."""
        return x + radius * l1_ball.uniform(keys, x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """``(N,)``."""
        return (x_adv - x).flatten(1).abs().sum(1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """``||g||_inf``: what one unit of ``eps`` gains on a linear loss.  ``(N,)``."""
        return gradient.flatten(1).abs().amax(1)

    def scaled(self, factor: float) -> Self:
        """A factor of 0 (a warm-up's first step) gives the smallest ball there is, since ``eps`` is above 0."""
        return replace(self, eps=max(self.eps * factor, sys.float_info.min))

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse an ``eps`` beyond the number of values of ``shape`` (C, H, W): it would bound nothing."""
        if self.eps > math.prod(shape):
            raise ValueError(
                f"threat.eps={self.eps:g} is above {math.prod(shape)}, the L1 distance between opposite corners of "
                f"{shape} images in [0, 1]: every image would be within reach; choose an L1 eps below it"
            )


NORMS: dict[str, type[Linf] | type[L2] | type[L1]] = {"Linf": Linf, "L2": L2, "L1": L1}


def create(norm: str, eps: float) -> Threat:
    """The threat named ``norm`` (``Linf``, ``L2`` or ``L1``) of radius ``eps``, as configs write it."""
    if norm not in NORMS:
        raise ValueError(f"threat.norm={norm!r} is unknown; choose one of {', '.join(NORMS)}")
    return NORMS[norm](eps)

"""Square attack: random squares, kept when they lower the margin; needs logits only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import losses
from trainers.attacks import bumps, search
from trainers.attacks.draws import Draws, Sequential
from trainers.attacks.search import Rows, where
from trainers.l1_ball import corrected, inside, nearest
from trainers.threat import Threat
from trainers.types import Model

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After so many queries the share of the image that a square covers is halved."""


@dataclass(frozen=True)
class Square:
    """Of ``queries`` random changes to one square of the image, those that lower ``z_y - max_{k != y} z_k`` are kept.

    Linf: the start is vertical stripes of ±eps, and a change moves each channel of the square by ±2·eps.  L2: the
    start is a 5 × 5 grid of smooth bumps of norm eps, and a change takes the perturbation out of one window and puts a
    bump into another, scaled so that all of eps is used.  L1: as L2 with steeper bumps, measured by absolute sums, and
    the result is projected onto ball and cube together.  A square covers a share ``p`` of the image, halved after 10,
    50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries.

    Source: Andriushchenko et al. 2020 (1912.00049), algorithms 1 to 3; for L1, Croce and Hein 2021 (2103.01208); the
    schedule as AutoAttack uses it (2003.01690), which does not stretch it over ``queries``.  As in the authors' code
    the last row and column of positions is never drawn, and their random numbers come in the same order: fewer than 16
    at once are, from torch's generator on the CPU, those of as many draws.  Where we differ: images need not be square,
    and L1's points are drawn back into ball and cube where rounding takes them out.
    """

    threat: Threat
    queries: int = 5000
    restarts: int = 1
    p: float = 0.8

    def __post_init__(self) -> None:
        for name in ("queries", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"attack.{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.p <= 1:
            raise ValueError(f"attack.p={self.p:g} must be in (0, 1]; 0.8 is the published value")

    @property
    def name(self) -> str:
        return "square"

    def __call__(self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        """Of each example the point it was fooled at, else ``x``."""
        return search.attack(self, model, x, y, keys)

    def parts(self, classes: int) -> int:
        return self.restarts

    @torch.no_grad()
    def start(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        x, y, key, part = rows["x"], rows["y"], rows["key"], rows["part"]
        x_adv = self._stripes(x, key, part, draws) if self.threat.norm == "Linf" else self._grid(x, key, part, draws)
        margin = losses.margin(model(x_adv), y)
        won = _passed(margin)
        return rows | {
            "won": won,
            "over": won,
            "found": self._inside(x_adv, x),
            "best": x_adv,
            "margin": margin,
            "steps": torch.zeros_like(y),
        }

    @torch.no_grad()
    def step(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        x, y, best = rows["x"], rows["y"], rows["best"]
        change = self._change_linf if self.threat.norm == "Linf" else self._change_bumps
        new = change(x, best, rows["key"], rows["part"], rows["steps"], draws)
        margin = losses.margin(model(new), y)
        passed = _passed(margin)
        better = ((margin < rows["margin"]) | passed) & ~rows["over"]
        steps, won = rows["steps"] + 1, rows["won"] | (passed & ~rows["over"])
        best = where(better, new, best)
        return rows | {
            "won": won,
            "over": rows["over"] | won | (steps >= self.queries),
            "found": self._inside(best, x),
            "best": best,
            "margin": torch.where(better, margin, rows["margin"]),
            "steps": steps,
        }

    def _share(self, steps: Tensor) -> Tensor:
        """Share of the image that a square covers after so many queries, float64."""
        halvings = torch.bucketize(steps, torch.tensor(_HALVINGS, device=steps.device))
        return self.p * 0.5 ** halvings.double()

    def _stripes(self, x: Tensor, keys: Tensor, part: Tensor, draws: Draws) -> Tensor:
        signs = _signs(draws.uniform(keys, (part, 0), (x.shape[1], 1, x.shape[3])))
        return (x + self.threat.eps * signs.to(x.dtype)).clamp(0, 1)

    def _change_linf(self, x: Tensor, best: Tensor, keys: Tensor, part: Tensor, steps: Tensor, draws: Draws) -> Tensor:
        channels, height, width = x.shape[1:]
        side = (self._share(steps) * height * width).sqrt().round().long().clamp(1, min(height, width))
        drawn = draws.uniform(keys, (part, steps + 1), (2 + channels,), shared=True)
        top, left = _position(drawn[:, 0], height, side), _position(drawn[:, 1], width, side)
        signs = _signs(drawn[:, 2:, None, None]).to(x.dtype)
        window = _window(x, top, left, side)
        return self.threat.project(best + window * (2 * self.threat.eps * signs), x)

    def _grid(self, x: Tensor, keys: Tensor, part: Tensor, draws: Draws) -> Tensor:
        """Bumps of either sign and direction on the tiles of a 5 × 5 grid, or more where the image is not square."""
        channels, height, width = x.shape[1:]
        side = max(min(height, width) // 5, 1)
        delta = torch.zeros_like(x)
        first = (height - side * 5) // 2 if height == width else 0
        number = 0
        for top in range(first, first + height // side * side, side):
            for left in range(first, first + width // side * side, side):
                turned = draws.uniform(keys, (part, 0, number), (1,), shared=True)
                signs = _signs(draws.uniform(keys, (part, 0, number + 1), (channels, 1, 1)))
                bump = bumps.of_side(side, self.threat.norm, turned[:, 0] > 0.5, x)[:, None] * signs.to(x.dtype)
                room = delta[:, :, top : top + side, left : left + side]
                room += bump[:, :, : room.shape[2], : room.shape[3]]
                number += 2
        return self._onto_ball(delta, x, draws)

    def _change_bumps(self, x: Tensor, best: Tensor, keys: Tensor, part: Tensor, steps: Tensor, draws: Draws) -> Tensor:
        channels, height, width = x.shape[1:]
        delta, norm = best - x, self.threat.norm
        side = (self._share(steps) * height * width).sqrt().round().long().clamp_min(3)
        side = (side + (side % 2 == 0)).clamp_max(min(height, width))
        drawn = draws.uniform(keys, (part, steps + 1, 0), (5,), shared=True)
        places = [_position(drawn[:, i], length, side) for i, length in enumerate((height, width, height, width))]
        turned = drawn[:, 4] > 0.5
        signs = _signs(draws.uniform(keys, (part, steps + 1, 1), (channels, 1, 1))).to(x.dtype)
        here, there = _window(x, places[0], places[1], side), _window(x, places[2], places[3], side)

        shared = (int(side[0]), int(places[0][0]), int(places[1][0])) if norm == "L1" and _as_theirs(draws) else None

        old = delta * here / (1e-12 + _window_norm(delta * here, norm, shared))
        table = bumps.every_side(min(height, width), norm, x.dtype, x.device)
        new = bumps.placed(table, side, turned, places[0], places[1], x) * signs + old
        held = _window_norm(delta * torch.maximum(here, there), norm)
        new = new / (1e-12 + _window_norm(new, norm, shared)) * self._room(delta, held)
        delta = torch.where(here > 0, new * channels if norm == "L1" else new, delta * (1 - there))
        return self._onto_ball(delta, x, draws)

    def _room(self, delta: Tensor, held: Tensor) -> Tensor:
        """The norm of a channel's new bump (L1: by channels): what is left of eps, and what the windows held."""
        eps, channels = self.threat.eps, delta.shape[1]
        if self.threat.norm == "L1":
            return (eps - delta.abs().sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels + held
        left_over = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels
        return (left_over + held.square()).sqrt()

    def _onto_ball(self, delta: Tensor, x: Tensor, draws: Draws) -> Tensor:
        """L2: of norm eps, clipped to the cube.  L1: the nearest point of the cube and a ball a millionth smaller."""
        if self.threat.norm == "L1":
            eps = torch.full((len(x),), self.threat.eps * (1 - 1e-6), dtype=x.dtype, device=x.device)
            return corrected(x + delta, delta, x, eps) if _as_theirs(draws) else nearest(delta, x, eps).clamp(0, 1)
        return (x + _unit(delta) * self.threat.eps).clamp(0, 1)

    def _inside(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return inside(x_adv, x, self.threat.eps) if self.threat.norm == "L1" else x_adv


def _as_theirs(draws: Draws) -> bool:
    """Where a window holds rounding errors only, a change blows them up: their bits must be the authors' too."""
    return isinstance(draws, Sequential)


def _passed(margin: Tensor) -> Tensor:
    """Not above 0, or not a number."""
    return ~(margin > 0)


def _signs(uniform: Tensor) -> Tensor:
    return (2 * uniform - 1).sign()


def _position(uniform: Tensor, length: int, side: Tensor) -> Tensor:
    """``(N,)`` in [0, length - side), or 0 where the square fills the image."""
    return ((length - side) * uniform).long()


def _window(x: Tensor, top: Tensor, left: Tensor, side: Tensor) -> Tensor:
    """``(N, 1, H, W)``: 1 inside each example's square, else 0."""
    row, column = (torch.arange(length, device=x.device) for length in x.shape[2:])
    down = (row >= top[:, None]) & (row < (top + side)[:, None])
    across = (column >= left[:, None]) & (column < (left + side)[:, None])
    return (down[:, None, :, None] & across[:, None, None, :]).to(x.dtype)


def _window_norm(delta: Tensor, norm: str, window: tuple[int, int, int] | None = None) -> Tensor:
    """L2, or L1, over the pixels of each channel, ``(N, C, 1, 1)``; summed in the order of ``window`` (side, top, left)
    where that is given and holds all that is not 0."""
    if window is not None:
        side, top, left = window
        delta = delta[:, :, top : top + side, left : left + side].contiguous()
    return delta.abs().sum((2, 3), keepdim=True) if norm == "L1" else delta.square().sum((2, 3), keepdim=True).sqrt()


def _unit(delta: Tensor) -> Tensor:
    return delta / (delta.square().sum((1, 2, 3), keepdim=True).sqrt() + 1e-12)

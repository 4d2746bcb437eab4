"""Square attack: random squares, kept when they lower the margin; needs logits only."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from trainers import losses
from trainers.attacks import search
from trainers.attacks.draws import Draws
from trainers.attacks.search import Rows, where
from trainers.threat import Threat
from trainers.types import Model

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After so many queries the share of the image that a square covers is halved."""


@dataclass(frozen=True)
class Square:
    """Of ``queries`` random changes to one square of the image, those that lower ``z_y - max_{k != y} z_k`` are kept.

    Linf: the start is vertical stripes of ±eps, and a change moves each channel of the square by ±2·eps.  L2: the
    start is a 5 × 5 grid of smooth bumps of norm eps, and a change takes the perturbation out of one window and puts a
    bump into another, scaled so that all of eps is used.  A square covers a share ``p`` of the image, halved after 10,
    50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries.

    Source: Andriushchenko et al. 2020 (1912.00049), algorithms 1 to 3; the schedule as AutoAttack uses it
    (2003.01690), which does not stretch it over ``queries``.  As in the authors' code the last row and column of
    positions is never drawn, and their random numbers come in the same order: fewer than 16 at once are, from torch's
    generator on the CPU, those of as many draws.  Where we differ: images need not be square.
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
            "found": x_adv,
            "margin": margin,
            "steps": torch.zeros_like(y),
        }

    @torch.no_grad()
    def step(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        x, y, best = rows["x"], rows["y"], rows["found"]
        change = self._change_linf if self.threat.norm == "Linf" else self._change_l2
        new = change(x, best, rows["key"], rows["part"], rows["steps"], draws)
        margin = losses.margin(model(new), y)
        passed = _passed(margin)
        better = ((margin < rows["margin"]) | passed) & ~rows["over"]
        steps, won = rows["steps"] + 1, rows["won"] | (passed & ~rows["over"])
        return rows | {
            "won": won,
            "over": rows["over"] | won | (steps >= self.queries),
            "found": where(better, new, best),
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
                bump = _bumps(side, turned[:, 0] > 0.5, x)[:, None] * signs.to(x.dtype)
                room = delta[:, :, top : top + side, left : left + side]
                room += bump[:, :, : room.shape[2], : room.shape[3]]
                number += 2
        return (x + _unit(delta) * self.threat.eps).clamp(0, 1)

    def _change_l2(self, x: Tensor, best: Tensor, keys: Tensor, part: Tensor, steps: Tensor, draws: Draws) -> Tensor:
        channels, height, width = x.shape[1:]
        delta, eps = best - x, self.threat.eps
        side = (self._share(steps) * height * width).sqrt().round().long().clamp_min(3)
        side = (side + (side % 2 == 0)).clamp_max(min(height, width))
        drawn = draws.uniform(keys, (part, steps + 1, 0), (5,), shared=True)
        places = [_position(drawn[:, i], length, side) for i, length in enumerate((height, width, height, width))]
        turned = drawn[:, 4] > 0.5
        signs = _signs(draws.uniform(keys, (part, steps + 1, 1), (channels, 1, 1))).to(x.dtype)
        here, there = _window(x, places[0], places[1], side), _window(x, places[2], places[3], side)

        old = delta * here / (1e-12 + _window_norm(delta * here))
        bump = _placed(_all_bumps(min(height, width), x.dtype, x.device), side, turned, places[0], places[1], x)
        new = bump * signs + old
        left_over = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels
        size = (left_over + _window_norm(delta * torch.maximum(here, there)).square()).sqrt()
        new = new / (1e-12 + _window_norm(new)) * size
        delta = torch.where(here > 0, new, delta * (1 - there))
        return (x + _unit(delta) * eps).clamp(0, 1)


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


def _window_norm(delta: Tensor) -> Tensor:
    """L2 over the pixels of each channel, ``(N, C, 1, 1)``."""
    return delta.square().sum((2, 3), keepdim=True).sqrt()


def _unit(delta: Tensor) -> Tensor:
    return delta / (delta.square().sum((1, 2, 3), keepdim=True).sqrt() + 1e-12)


def _placed(bumps: Tensor, side: Tensor, turned: Tensor, top: Tensor, left: Tensor, x: Tensor) -> Tensor:
    """``(N, 1, H, W)``: each example's bump, of its side and direction, at its place; zero around it."""
    row, column = (torch.arange(length, device=x.device) for length in x.shape[2:])
    largest = bumps.shape[1]
    down = (row - top[:, None])[:, :, None].expand(-1, -1, len(column))
    across = (column - left[:, None])[:, None, :].expand(-1, len(row), -1)
    inside = (down >= 0) & (down < side[:, None, None]) & (across >= 0) & (across < side[:, None, None])
    down, across = down.clamp(0, largest - 1), across.clamp(0, largest - 1)
    first, second = torch.where(turned[:, None, None], across, down), torch.where(turned[:, None, None], down, across)
    return (bumps[side[:, None, None] - 1, first, second] * inside)[:, None]


def _bumps(side: int, turned: Tensor, x: Tensor) -> Tensor:
    """``(N, side, side)``."""
    bump = _bump(side).to(x)
    return torch.where(turned[:, None, None], bump.T, bump)


@lru_cache(maxsize=8)
def _all_bumps(largest: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(largest, largest, largest)``: the bump of each side from 1 on, in the upper left corner."""
    table = torch.zeros(largest, largest, largest)
    for side in range(1, largest + 1):
        table[side - 1, :side, :side] = _bump(side)
    return table.to(device, dtype)


@lru_cache(maxsize=512)
def _bump(side: int) -> Tensor:
    """Two hills of opposite sign, one above the other, of norm 1 together."""
    upper = _hill(side // 2, side)
    bump = torch.cat([upper, -_hill(side - side // 2, side)])
    return bump / bump.square().sum().sqrt()


def _hill(height: int, width: int) -> Tensor:
    """Nested rectangles round the middle, the k-th adding ``1/k²``; norm 1."""
    hill = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for k in range(max(top, left) + 1):
        rows = slice(max(top - k, 0), min(top + k + 1, height))
        columns = slice(max(left - k, 0), min(left + k + 1, width))
        hill[rows, columns] += 1 / (k + 1) ** 2
    return hill / hill.square().sum().sqrt().clamp_min(1e-12)

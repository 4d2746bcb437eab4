"""Fast adaptive boundary attack: the nearest point on the other side of the decision boundary."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.attacks import search
from trainers.attacks.draws import Draws
from trainers.attacks.search import Rows, misclassified, where
from trainers.modes import outside_inference
from trainers.threat import Threat, per_example
from trainers.types import Model


@dataclass(frozen=True)
class FAB:
    """Steps to the hyperplane where the linearised margin is zero, biased towards the original image.

    With ``f = z_t - z_y``, its gradient ``w`` at ``x_k``, and ``P(v)`` the smallest move of ``v`` inside the cube that
    reaches ``{v: f(x_k) + <w, v - x_k> = 0}``: ``x_{k+1} = clip((1 - α)(x_k + η P(x_k)) + α (x + η P(x)))``, where
    ``α = min(|P(x_k)| / (|P(x_k)| + |P(x)|), alpha_max)`` and ``η = eta``.  A misclassified point is noted, and the
    next step starts from ``x + beta (x_k - x)``.

    ``targets`` likeliest wrong classes are tried in turn, as many as there are; ``targets=0`` takes in each step the
    class whose boundary is nearest, at one backward pass a class.  Restarts after the first begin at random in half
    the ball.  The search of an example ends when a misclassified point is inside the threat: its norm is not
    minimised further, which cannot change the verdict.

    Source: Croce and Hein 2020 (1907.02044), algorithm 1; targeted as in 2003.01690, section 5.
    """

    threat: Threat
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("restarts", 1), ("targets", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"attack.{name}={getattr(self, name)} must be at least {least}")

    @property
    def name(self) -> str:
        return "fab-t" if self.targets else "fab"

    def __call__(self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        """Of each example the point it was fooled at, else ``x``."""
        return search.attack(self, model, x, y, keys)

    def parts(self, classes: int) -> int:
        return self.restarts * max(min(self.targets, classes - 1), 1)

    def start(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        x, y, part = rows["x"], rows["y"], rows["part"]
        target = y
        if self.targets:
            if "ranked" not in rows:
                with torch.no_grad():
                    rows = rows | {"ranked": model(x).argsort(dim=1, descending=True)[:, 1 : self.targets + 1]}
            target = rows["ranked"].gather(1, (part // self.restarts)[:, None])[:, 0]
        x_adv = x
        if self.restarts > 1:
            x_adv = where(part % self.restarts > 0, self._random_start(x, rows["key"], part, draws), x)
        false = torch.zeros_like(y, dtype=torch.bool)
        return rows | {
            "won": false,
            "over": false,
            "found": x,
            "target": target,
            "x_adv": x_adv,
            "steps": torch.zeros_like(y),
        }

    def step(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        x, y, x_adv = rows["x"], rows["y"], rows["x_adv"]
        margins, gradients = self._differences(model, x_adv, y, rows["target"])
        slope = self.threat.dual_norm(gradients.flatten(0, 1)).reshape(margins.shape)
        nearest = (margins.abs() / (1e-12 + slope)).argmin(1)
        new = self._towards(x_adv, x, _of(margins, nearest), _of(gradients, nearest))
        with torch.no_grad():
            crossed = misclassified(model(new), y)
        fooled = crossed & (self.threat.distance(new, x) <= self.threat.eps) & ~rows["over"]
        steps, won = rows["steps"] + 1, rows["won"] | fooled
        return rows | {
            "won": won,
            "over": rows["over"] | won | (steps >= self.steps),
            "found": where(fooled, new, rows["found"]),
            "x_adv": where(crossed, x + (new - x) * self.beta, new),
            "steps": steps,
        }

    def _towards(self, x_adv: Tensor, x: Tensor, value: Tensor, w: Tensor) -> Tensor:
        """From ``x_adv``, where ``f = value`` and ``∇f = w``, to the boundary, with some of the way from ``x``."""
        back = (w * (x_adv - x)).flatten(1).sum(1)
        moves = nearest_on_plane(
            self.threat.norm, torch.cat([x_adv, x]), torch.cat([w, w]), torch.cat([-value, back - value])
        )
        from_here, from_x = moves.chunk(2)
        here, there = (self.threat.distance(d, torch.zeros_like(d)).clamp_min(1e-8) for d in (from_here, from_x))
        alpha = per_example((here / (here + there)).clamp(0, self.alpha_max), x)
        return ((x_adv + self.eta * from_here) * (1 - alpha) + (x + self.eta * from_x) * alpha).clamp(0, 1)

    def _random_start(self, x: Tensor, keys: Tensor, part: Tensor, draws: Draws) -> Tensor:
        shape = x.shape[1:]
        if self.threat.norm == "Linf":
            direction = 2 * draws.uniform(keys, (part,), shape).to(x.dtype) - 1
        else:
            direction = draws.normal(keys, (part,), shape).to(x.dtype)
        length = per_example(self.threat.distance(direction, torch.zeros_like(x)), x)
        return (x + self.threat.eps * direction / length * 0.5).clamp(0, 1)

    def _differences(self, model: Model, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """``z_t - z_y: (N, M)`` and its gradients ``(N, M, C, H, W)``, for the target or every other class."""
        with torch.inference_mode(False), torch.enable_grad():
            x = outside_inference(x).requires_grad_()
            logits = model(x)
            of_y = logits.gather(1, y[:, None])
            if self.targets:
                differences = logits.gather(1, target[:, None]) - of_y
            else:
                others = torch.arange(logits.shape[1] - 1, device=x.device).expand(len(x), -1)
                differences = logits.gather(1, others + (others >= y[:, None]).long()) - of_y
            columns = differences.sum(0)
            last = len(columns) - 1
            gradients = [torch.autograd.grad(column, x, retain_graph=i < last)[0] for i, column in enumerate(columns)]
        return differences.detach(), torch.stack(gradients, 1)


def _of(values: Tensor, index: Tensor) -> Tensor:
    return values[torch.arange(len(values), device=values.device), index]


def nearest_on_plane(norm: str, x: Tensor, w: Tensor, needed: Tensor) -> Tensor:
    """The smallest ``d`` in ``norm`` (``Linf``, ``L2`` or ``L1``) with ``<w, d> = needed`` and ``x + d`` in [0, 1].

    Where no point of the cube is far enough, the corner that comes nearest.  ``x, w, d: (N, ...)``, ``needed: (N,)``.

    L1: the coordinates of largest ``|w_i|`` use up all their room, the last of them a part of it; of equal ones the
    first goes first.  Linf and L2: ``d_i = ±min(λ v_i, room_i)`` in the direction that helps, with ``v = 1`` for Linf
    and ``|w|`` for L2.  The gain ``Σ |w_i| min(λ v_i, room_i)`` is concave and piecewise linear in ``λ``: Newton's
    method from the left is exact after as many steps as it meets pieces, a few, where the authors' code sorts the
    coordinates.
    """
    shape, x, w = x.shape, x.flatten(1), w.flatten(1)
    weight, gap = w.abs(), needed.abs()[:, None]
    up = (w > 0) == (needed > 0)[:, None]
    room = torch.where(up, 1 - x, x) * (weight > 0)
    if norm == "L1":
        moved = _filled(weight, room, gap)
        return torch.where(up, moved, -moved).reshape(shape)
    gain = weight * room
    rate = weight if norm == "Linf" else weight * weight
    speed = torch.ones_like(gap) if norm == "Linf" else weight
    pace = gap / rate.sum(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    pace = pace.clamp_max(torch.finfo(x.dtype).max)  # where w is 0, no infinity times 0
    while True:
        full = room <= pace * speed
        left = gap - torch.where(full, gain, 0).sum(1, keepdim=True)
        slope = torch.where(full, 0, rate).sum(1, keepdim=True)
        further = torch.where(slope > 0, left / slope, 1e30).clamp(pace, torch.full_like(pace, 1e30))
        if not bool((further > pace).any()):  # a NaN goes no further
            break
        pace = further
    moved = torch.minimum(pace * speed, room)
    return torch.where(up, moved, -moved).reshape(shape)


def _filled(weight: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """``(N, D)``: how far to move where the heaviest coordinates use up their room until ``gap`` is closed."""
    order = (1 / weight).clamp_max(1e12).argsort(dim=1, stable=True)
    weight, room = weight.gather(1, order), room.gather(1, order)
    left = torch.cat([gap, -weight * room], 1).cumsum(1)
    last = left[:, :-1].clamp_min(0) / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    moved = torch.where(left[:, 1:] >= 0, room, torch.minimum(last, room))
    return torch.zeros_like(moved).scatter(1, order, moved)

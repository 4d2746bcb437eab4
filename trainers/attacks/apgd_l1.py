"""Auto-PGD in the L1 ball: steps along few coordinates, and as many as the best point so far has changed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.attacks.search import Rows, misclassified, where
from trainers.l1_ball import corrected, inside, nearest
from trainers.threat import per_example

Gradient = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Images to ``(gradient (N, C, H, W), losses (N,), logits (N, K))``."""

LARGER = ((3.0, 0.3), (2.0, 0.3))
"""Multiples of eps, and shares of the steps (rounded up), before the rest of the steps at eps itself."""


@dataclass(frozen=True)
class SparseAscent:
    """``x_{k+1} = project(x_k + η s_k)``, where ``s_k`` is ``sign(g_k)`` on some coordinates, divided by their number.

    They are those of largest ``|g|``: at first a fifth of all, and from each checkpoint on two thirds of as many as the
    best point so far has changed.  Checkpoints are 4 % of the phase's steps apart, one at least.  ``η`` starts at eps.
    Where the best point changes fewer than 95 % of as many as at the checkpoint before, ``η`` becomes eps and the
    example goes back to its best point; else ``η`` is divided by 1.5, to no less than eps/10.

    ``phases``: ``(eps, steps)``, one after the other; each starts from the best point of the one before, projected,
    with a share counted at that point, and only the last one's points are inside the threat and may win.  An example's
    ``phase`` and ``steps`` in it are part of its row.

    ``reference``: projections round as in the authors' code, see ``corrected``; iterates may then lie a bit outside
    ball and cube, and what is ``found`` is drawn back.

    Source: Croce and Hein 2021, *Mind the box* (2103.01208); constants of AutoAttack's code.
    """

    phases: tuple[tuple[float, int], ...]
    reference: bool = False

    def start(self, rows: Rows, noise: Tensor, gradient: Gradient) -> Rows:
        """Rows at the start of a part, from ``noise: (N, C, H, W)`` projected onto the ball of the first phase."""
        x, y, phase = rows["x"], rows["y"], torch.zeros_like(rows["y"])
        eps = self._eps(phase, x)
        point = self._projected(x + noise, noise, x, eps)
        if len(self.phases) > 1 and self.reference:
            point = x + noise
            for _ in range(2):
                point = self._projected(point, point - x, x, eps)
        point = point.clamp(0, 1)
        slope, loss, logits = gradient(point)
        won = misclassified(logits, y) & (len(self.phases) == 1)
        changed = _changed(point, x)
        first = torch.full_like(changed, 0.2, dtype=torch.float32)
        return rows | {
            "won": won,
            "over": won,
            "found": where(won, inside(point, x, self.phases[-1][0]), x),
            "x_adv": point,
            "gradient": slope,
            "best": point,
            "best_gradient": slope,
            "best_loss": loss,
            "step_size": eps,
            "share": _share(changed, x) if len(self.phases) > 1 else first,
            "changed": changed if len(self.phases) > 1 else torch.full_like(changed, x[0].numel()),
            "phase": phase,
            "steps": torch.zeros_like(y),
        }

    def step(self, rows: Rows, gradient: Gradient) -> Rows:
        """One step, or, where a phase is at its end, the first point of the next."""
        x, last = rows["x"], len(self.phases) - 1
        begins = (rows["phase"] < last) & (rows["steps"] >= self._of(rows["phase"], [n for _, n in self.phases]))
        phase = rows["phase"] + begins
        eps = self._eps(phase, x)
        new = self._moved(rows, begins, eps)
        slope, loss, logits = gradient(new)

        fooled = misclassified(logits, rows["y"]) & ~rows["over"] & (phase == last)
        better = (loss > rows["best_loss"]) | begins
        best, best_gradient = where(better, new, rows["best"]), where(better, slope, rows["best_gradient"])
        steps = torch.where(begins, 0, rows["steps"] + 1)
        check = ~begins & (steps % self._of(phase, [max(int(0.04 * n), 1) for _, n in self.phases]) == 0)
        changed = _changed(best, x)
        reset = check & (changed / rows["changed"] < 0.95)
        shorter = torch.minimum(torch.maximum(rows["step_size"] / 1.5, self._eps(phase, x, 10)), eps)
        won = rows["won"] | fooled
        return rows | {
            "won": won,
            "over": rows["over"] | won | ((phase == last) & (steps >= self.phases[-1][1])),
            "found": where(fooled, inside(new, x, self.phases[-1][0]), rows["found"]),
            "x_adv": where(reset, best, new),
            "gradient": where(reset, best_gradient, slope),
            "best": best,
            "best_gradient": best_gradient,
            "best_loss": torch.where(better, loss, rows["best_loss"]),
            "step_size": torch.where(begins | reset, eps, torch.where(check, shorter, rows["step_size"])),
            "share": torch.where(begins | check, _share(changed, x), rows["share"]),
            "changed": torch.where(begins | check, changed, rows["changed"]),
            "phase": phase,
            "steps": steps,
        }

    def _moved(self, rows: Rows, begins: Tensor, eps: Tensor) -> Tensor:
        x, x_adv = rows["x"], rows["x_adv"]
        stepped = x_adv + _sparse_step(rows["gradient"], rows["share"], rows["step_size"])
        delta = where(begins, rows["best"], stepped) - x
        new = self._projected(where(begins, rows["best"], x + delta), delta, x, eps)
        return where(begins, new.clamp(0, 1), new)

    def _projected(self, point: Tensor, delta: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        return corrected(point, delta, x, eps) if self.reference else nearest(delta, x, eps).clamp(0, 1)

    def _eps(self, phase: Tensor, x: Tensor, divisor: float = 1) -> Tensor:
        return self._of(phase, [eps / divisor for eps, _ in self.phases], x.dtype)

    def _of(self, phase: Tensor, values: list[float] | list[int], dtype: torch.dtype = torch.int64) -> Tensor:
        """Of each example its phase's value."""
        return torch.tensor(values, dtype=dtype, device=phase.device)[phase]


def larger_phases(eps: float, steps: int) -> tuple[tuple[float, int], ...]:
    """3·eps and 2·eps for 30 % of the steps each, then eps for the rest."""
    before = tuple((factor * eps, math.ceil(share * steps)) for factor, share in LARGER)
    return (*before, (eps, steps - sum(n for _, n in before)))


def _changed(point: Tensor, x: Tensor) -> Tensor:
    """How many coordinates differ, ``(N,) int64``."""
    return (point != x).flatten(1).sum(1)


def _share(changed: Tensor, x: Tensor) -> Tensor:
    return changed.float() / x[0].numel() / 1.5


def _sparse_step(gradient: Tensor, share: Tensor, length: Tensor) -> Tensor:
    """The sign of the ``share`` largest entries of each example and of those as large, scaled to L1 norm ``length``."""
    size = gradient.abs()
    n = size[0].numel()
    rank = ((1 - share) * n).clamp(0, n - 1).long()[:, None]
    least = size.flatten(1).sort(dim=1).values.gather(1, rank)
    sign = gradient.sign() * (size >= per_example(least, size))
    count = sign.abs().flatten(1).sum(1) + 1e-10
    return per_example(length, sign) * sign / per_example(count, sign)

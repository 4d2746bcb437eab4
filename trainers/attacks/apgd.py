"""Auto-PGD: projected gradient ascent with momentum that chooses its own step size."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainers import losses
from trainers.attacks import search
from trainers.attacks.apgd_l1 import SparseAscent, larger_phases
from trainers.attacks.draws import Draws, Sequential
from trainers.attacks.search import Rows, misclassified, where
from trainers.modes import input_gradient
from trainers.threat import Threat, per_example
from trainers.types import Loss, Model

LOSSES = ("ce", "dlr", "targeted_dlr")


@dataclass(frozen=True)
class APGD:
    """``z = project(x_k + η ascent(g_k))``, ``x_{k+1} = project(x_k + a (z - x_k) + (1 - a)(x_k - x_{k-1}))``.

    ``a`` is 0.75, and 1 in the first step; ``η`` starts at 2·eps.  At checkpoints, whose distance shrinks from 22 % of
    ``steps`` by 3 % each to no less than 6 %, an example's ``η`` is halved, and it goes back to its best point, if at
    most a share ``rho`` of the steps since the last one raised the loss, or if its best loss has not changed since a
    checkpoint that did not halve it.

    ``loss``: ``"ce"``; ``"dlr"`` (3 classes at least); ``"targeted_dlr"`` (4), towards each of the ``targets``
    likeliest wrong classes in turn, as many as there are.  Every target gets ``restarts`` tries.  ``eot`` gradients
    are averaged in each step, for models that draw random numbers.

    Under an L1 threat the steps, their size and the checkpoints are those of ``SparseAscent``, and ``rho`` is not
    looked at.  ``larger_eps`` (L1 only) spends 30 % of the steps in a ball of 3·eps and 30 % in one of 2·eps first.

    Source: Croce and Hein 2020 (2003.01690), algorithm 1 and section 4; for L1 2021 (2103.01208).  As in the authors'
    code, the start is scaled to touch the face of the ball (L1: a normal draw is projected onto it), and the first
    checkpoint counts a positive first loss as a rise.
    """

    threat: Threat
    loss: str = "ce"
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    rho: float = 0.75
    eot: int = 1
    larger_eps: bool = False

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"attack.loss={self.loss!r} must be one of {', '.join(LOSSES)}")
        for name in ("steps", "restarts", "targets", "eot"):
            if getattr(self, name) < 1:
                raise ValueError(f"attack.{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.rho < 1:
            raise ValueError(f"attack.rho={self.rho:g} must be in (0, 1); 0.75 is the published value")
        if self.larger_eps and self.threat.norm != "L1":
            raise ValueError(f"attack.larger_eps=true is for an L1 threat, not {self.threat.norm}; set it to false")
        if self.larger_eps and larger_phases(self.threat.eps, self.steps)[-1][1] < 1:
            raise ValueError(f"attack.steps={self.steps} leaves larger_eps none at eps itself; take 5 or more")

    @property
    def name(self) -> str:
        return {"ce": "apgd-ce", "dlr": "apgd-dlr", "targeted_dlr": "apgd-t"}[self.loss]

    def __call__(self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        """Of each example the point it was fooled at, else ``x``."""
        return search.attack(self, model, x, y, keys)

    @property
    def classes(self) -> int:
        """How many the loss needs to be defined."""
        return {"ce": 2, "dlr": 3, "targeted_dlr": 4}[self.loss]

    def parts(self, classes: int) -> int:
        if classes < self.classes:
            raise ValueError(f"attack.loss={self.loss!r} needs {self.classes} classes or more, the model has {classes}")
        return self.restarts * (min(self.targets, classes - 1) if self.loss == "targeted_dlr" else 1)

    def start(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        x, y, part = rows["x"], rows["y"], rows["part"]
        if self.loss == "targeted_dlr":
            rows = rows if "ranked" in rows else rows | {"ranked": self.ranked(model, x, y)}
            target = rows["ranked"].gather(1, (part // self.restarts)[:, None])[:, 0]
        else:
            target = y
        rows = rows | {"target": target}
        if self.threat.norm == "L1":
            ascent, noise = self._sparse(draws), draws.normal(rows["key"], (part,), x.shape[1:]).to(x.dtype)
            for _ in ascent.phases if self.larger_eps and ascent.reference else ():
                draws.normal(rows["key"], (part,), x.shape[1:])  # the authors' code draws a start it does not use
            return ascent.start(rows, noise, partial(self._gradient, model, y=y, target=target))
        x_adv = self._random_start(x, rows["key"], part, draws)
        gradient, loss, logits = self._gradient(model, x_adv, y, target)
        n, zero = len(x), torch.zeros_like(y)
        won = misclassified(logits, y)
        return rows | {
            "won": won,
            "over": won,
            "found": where(won, x_adv, x),
            "x_adv": x_adv,
            "before": x_adv,
            "gradient": gradient,
            "best": x_adv,
            "best_gradient": gradient,
            "best_loss": loss,
            "checked_loss": loss,
            "last_loss": torch.zeros_like(loss),
            "step_size": torch.full((n,), 2 * self.threat.eps, dtype=x.dtype, device=x.device),
            "steps": zero,
            "rises": zero,
            "window": zero + self._window,
            "until_check": zero + self._window,
            "halved": torch.ones_like(won),
        }

    def ranked(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """``(N, targets)``: the wrong classes in the order they are tried, here by their logit."""
        with torch.no_grad():
            order = model(x).argsort(dim=1, descending=True)
        return order[:, 1 : self.targets + 1]

    @property
    def _window(self) -> int:
        return max(int(0.22 * self.steps), 1)

    def _sparse(self, draws: Draws) -> SparseAscent:
        eps, steps = self.threat.eps, self.steps
        phases = larger_phases(eps, steps) if self.larger_eps else ((eps, steps),)
        return SparseAscent(phases, reference=isinstance(draws, Sequential))

    def step(self, model: Model, rows: Rows, draws: Draws) -> Rows:
        if self.threat.norm == "L1":
            return self._sparse(draws).step(rows, partial(self._gradient, model, y=rows["y"], target=rows["target"]))
        x, x_adv, threat = rows["x"], rows["x_adv"], self.threat
        a = per_example((rows["steps"] > 0).to(x.dtype) * -0.25 + 1, x)
        z = _project(threat, x_adv + per_example(rows["step_size"], x) * _ascent(threat, rows["gradient"]), x)
        new = _project(threat, x_adv + (z - x_adv) * a + (x_adv - rows["before"]) * (1 - a), x)
        gradient, loss, logits = self._gradient(model, new, rows["y"], rows["target"])

        fooled = misclassified(logits, rows["y"]) & ~rows["over"]
        better = loss > rows["best_loss"]
        best, best_loss = where(better, new, rows["best"]), torch.where(better, loss, rows["best_loss"])
        best_gradient = where(better, gradient, rows["best_gradient"])
        rises = rows["rises"] + (loss > rows["last_loss"])

        window, until = rows["window"], rows["until_check"] - 1
        check = until == 0
        idle = ~rows["halved"] & (rows["checked_loss"] >= best_loss)
        halve = check & ((rises <= self.rho * window) | idle)
        shorter = (window - max(int(0.03 * self.steps), 1)).clamp_min(max(int(0.06 * self.steps), 1))
        window = torch.where(check, shorter, window)
        steps, won = rows["steps"] + 1, rows["won"] | fooled
        return rows | {
            "won": won,
            "over": rows["over"] | won | (steps >= self.steps),
            "found": where(fooled, new, rows["found"]),
            "x_adv": where(halve, best, new),
            "before": x_adv,
            "gradient": where(halve, best_gradient, gradient),
            "best": best,
            "best_gradient": best_gradient,
            "best_loss": best_loss,
            "checked_loss": torch.where(check, best_loss, rows["checked_loss"]),
            "last_loss": loss,
            "step_size": torch.where(halve, rows["step_size"] / 2, rows["step_size"]),
            "steps": steps,
            "rises": torch.where(check, 0, rises),
            "window": window,
            "until_check": torch.where(check, window, until),
            "halved": torch.where(check, halve, rows["halved"]),
        }

    def _random_start(self, x: Tensor, keys: Tensor, part: Tensor, draws: Draws) -> Tensor:
        """A random direction, as far as the ball goes."""
        shape = x.shape[1:]
        if self.threat.norm == "Linf":
            direction = 2 * draws.uniform(keys, (part,), shape).to(x.dtype) - 1
        else:
            direction = draws.normal(keys, (part,), shape).to(x.dtype)
        length = self.threat.distance(direction, torch.zeros_like(x)) + 1e-12
        return (x + self.threat.eps * (direction / per_example(length, x))).clamp(0, 1)

    def _gradient(self, model: Model, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total = torch.zeros_like(x)
        for _ in range(self.eot):
            gradient, loss, logits = input_gradient(model, x, self._loss(y, target))
            total = total + gradient
        return total / self.eot, loss, logits

    def _loss(self, y: Tensor, target: Tensor) -> Loss:
        if self.loss == "ce":
            return partial(losses.cross_entropy, y=y)
        if self.loss == "dlr":
            return partial(losses.dlr, y=y)
        return partial(losses.targeted_dlr, y=y, target=target)


def _project(threat: Threat, x_adv: Tensor, x: Tensor) -> Tensor:
    """``threat.project``, rounded as the authors' code rounds: in 100 steps a last bit grows."""
    if threat.norm == "Linf":
        return threat.project(x_adv, x)
    delta = x_adv - x
    length = delta.square().flatten(1).sum(1).sqrt()
    unit = delta / per_example(length + 1e-12, x)
    return (x + unit * per_example(length.clamp_max(threat.eps), x)).clamp(0, 1)


def _ascent(threat: Threat, gradient: Tensor) -> Tensor:
    """``threat.ascent``, rounded likewise where the gradient's square can be told from 0."""
    if threat.norm == "Linf":
        return gradient.sign()
    length = per_example(gradient.square().flatten(1).sum(1).sqrt(), gradient)
    return torch.where(length > 1e-12, gradient / (length + 1e-12), threat.ascent(gradient))

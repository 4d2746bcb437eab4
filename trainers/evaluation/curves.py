"""How robust accuracy falls with eps: for each image the smallest eps at which it was fooled."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.evaluation.attack_run import Effort
from trainers.evaluation.exam import Exam
from trainers.evaluation.ledger import Item
from trainers.evaluation.meter import Meter
from trainers.evaluation.task import Task
from trainers.threat import Threat
from trainers.types import Attack

OCTAVES = 8
"""How far from the eps that is asked for the bracket is looked for, either way."""


@dataclass(frozen=True)
class Smallest:
    """``ids``, and ``eps: (N,) float64``: the smallest eps at which the image was fooled; 0 where it is wrong as it is,
    infinite where no eps that was tried was enough.  No smaller eps is proven safe: an attack may have missed it."""

    ids: Tensor
    eps: Tensor


def smallest_eps(
    attack: Callable[[Threat], Attack],
    threat: Threat,
    model: Meter,
    exam: Exam,
    rows: Tensor,
    known: Tensor,
    largest: float,
    classes: int,
    effort: Effort,
    halvings: int = 5,
) -> Smallest:
    """For each of ``rows`` the smallest eps at which ``attack(threat of that eps)`` fools it.

    First a bracket: from ``threat.eps`` down or up by factors of 2, to ``largest`` at most.  Then the bracket
    ``[lo, hi]`` is halved ``halvings`` times.  All examples meet the same few values of eps, so each is one batched
    attack.  ``known``: ``(N,)`` eps at which each example is known to be fooled (0: as it is; infinite: unknown).

    Errors: ``ValueError`` for an eps of 0, which no factor makes larger.
    Source: bisection, as in the fixed-budget use of Carlini et al. 2019 (1902.06705), section 4.3.
    """
    if threat.eps == 0:
        raise ValueError("threat.eps=0 is nothing to search from: give the eps that robust accuracy is asked for at")
    hi, lo = known.double().clone(), torch.zeros(len(rows), dtype=torch.float64)
    open_ = hi > 0

    def tried(where: Tensor, eps: float) -> None:
        """Narrow the brackets of the examples ``where``."""
        fooled = _fooled(attack(threat.scaled(eps / threat.eps)), model, exam, rows[where], classes, effort)
        hi[where[fooled]] = hi[where[fooled]].clamp_max(eps)
        lo[where[~fooled]] = lo[where[~fooled]].clamp_min(eps)

    for step in range(OCTAVES + 1):  # upwards, those whom nothing has fooled yet
        eps = min(threat.eps * 2**step, largest)
        for some in _some(open_ & hi.isinf() & (lo < eps)):
            tried(some, eps)
    for step in range(OCTAVES + 1):  # downwards, those without a lower end
        eps = threat.eps * 2.0**-step
        for some in _some(open_ & (lo == 0) & (hi > eps)):
            tried(some, eps)
    for _ in range(halvings):
        bracketed = open_ & hi.isfinite()
        middle = (lo + hi) / 2
        for eps in middle[bracketed].unique().tolist():
            for some in _some(bracketed & (middle == eps)):
                tried(some, eps)
    return Smallest(exam.ids[rows], hi)


def _some(mask: Tensor) -> Iterable[Tensor]:
    found = mask.nonzero()[:, 0]
    return [found] if len(found) else []


def _fooled(attack: Attack, model: Meter, exam: Exam, rows: Tensor, classes: int, effort: Effort) -> Tensor:
    task = Task(Item(0, attack.name, rows), attack, model, exam, classes, effort)
    for _ in task:
        pass
    piece = task.piece()
    fooled = dict(zip(piece.ids.tolist(), piece.fooled.tolist(), strict=True))
    return torch.tensor([fooled[i] for i in exam.ids[rows].tolist()], dtype=torch.bool)


def shown_up_to(smallest: Tensor, asked: float) -> float:
    """The eps a curve is drawn to: past the one asked for, and where nearly all are fooled."""
    finite = smallest[smallest.isfinite()]
    return max(1.25 * asked, float(finite.quantile(0.98))) if len(finite) else 2 * asked

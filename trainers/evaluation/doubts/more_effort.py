"""More steps and other random starts that still find adversarial examples."""

from collections.abc import Sequence

import torch

from trainers import noise
from trainers.attacks.apgd import APGD
from trainers.attacks.search import misclassified
from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, shown
from trainers.evaluation.intervals import wilson
from trainers.threat import Threat
from trainers.types import Attack

NAME = "more effort still gains"

SHARE = 0.01


def harder(threat: Threat, classes: int) -> tuple[Attack, ...]:
    """From random starts of their own: ``apgd-ce`` with twice the published steps, and ``apgd-dlr`` three times, which
    where there are 3 classes or more does not depend on the logits' scale."""
    dlr = (APGD(threat, "dlr", steps=100, restarts=3),) if classes >= 3 else ()
    return (APGD(threat, "ce", steps=200), *dlr)


def look(case: Case, effort: Sequence[Attack] | None = None) -> Doubt | None:
    """Of the examples that withstood the evaluation, ``effort`` fools more than 1 %, shown with 95 % confidence and by
    3 examples or more."""
    left = torch.arange(len(case.y), device=case.y.device)[case.robust & case.right]
    n = len(left)
    attacks = harder(case.threat, case.classes) if effort is None else effort
    keys = case.streams(NAME)
    for i, attack in enumerate(attacks):
        if len(left):
            x, y = case.x[left], case.y[left]
            left = left[~misclassified(case.forward(attack(case.model, x, y, noise.stream(keys[left], i))), y)]
    found = n - len(left)
    if n == 0 or not shown(found, n, SHARE):
        return None
    return Doubt(
        NAME,
        f"More steps and other random starts fooled {found} of {n} images that had withstood every attack: the "
        "evaluation has not converged and its robust accuracy is an upper bound. Raise steps and restarts "
        "(attack.version=plus) until it no longer falls.",
        {
            "images": n,
            "fooled_by_more": found,
            "share": found / n,
            "share_at_least": wilson(found, n)[0],
            "attacks": "; ".join(str(attack) for attack in attacks),
        },
    )

"""Gradients that are zero, or so small that they lead nowhere."""

from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, many

NAME = "zero gradients"


def look(case: Case) -> Doubt | None:
    """Of examples classified rightly, 5 % or more with no use for the gradient of their margin (``Case.vanishing``).

    AutoAttack asks only for exact zeros, of its ratio loss, where its walk begins.
    """
    n, gradient = int(case.right.sum()), case.margin_gradient[case.right].flatten(1)
    vanishing = int(case.vanishing[case.right].sum())
    if n == 0 or not many(vanishing, n, 0.05):
        return None
    return Doubt(
        NAME,
        f"For {vanishing} of {n} images classified rightly the gradient of the logit margin is zero or vanishing, so "
        "gradient attacks walk blindly and their robust accuracy is an upper bound. Look for a step, a saturating "
        "output or a detached tensor in forward, and attack a smooth surrogate of it (BPDA) or raise Square's queries.",
        {
            "images": n,
            "vanishing": vanishing,
            "exactly_zero": int((gradient == 0).all(1).sum()),
            "not_finite": int((~gradient.isfinite()).any(1).sum()),
        },
    )

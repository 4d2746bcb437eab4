"""A cross-entropy that float32 cannot differentiate, though the logits can be."""

from functools import partial

from trainers import losses
from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, many

NAME = "saturated cross-entropy"


def look(case: Case) -> Doubt | None:
    """Half or more of the examples classified rightly have a cross-entropy gradient of exactly zero, and a margin whose
    gradient is not.

    That takes margins of about 90 and more, e^-88 being the smallest probability that float32 holds in full: a
    confident network has 10 to 30.
    """
    gradient = case.gradient(partial(losses.cross_entropy, y=case.y)).flatten(1)
    sound = case.right & ~case.vanishing
    n, saturated = int(case.right.sum()), int(((gradient == 0).all(1) & sound).sum())
    if n == 0 or not many(saturated, n, 0.5):
        return None
    margin = losses.margin(case.logits, case.y)[case.right]
    return Doubt(
        NAME,
        f"For {saturated} of {n} images classified rightly the cross-entropy gradient underflows to exactly zero, as "
        "when logits are multiplied by a large constant. PGD and apgd-ce see nothing there: rely on attacks that do "
        "not depend on the logits' scale (apgd-t, apgd-dlr, fab-t), or divide the logits by a temperature.",
        {"images": n, "saturated": saturated, "median_margin": float(margin.median())},
    )

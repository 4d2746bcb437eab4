"""Adversarial examples that are no answer to the question."""

from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt

NAME = "points outside the threat"


def look(case: Case) -> Doubt | None:
    if case.tally.outside == 0:
        return None
    return Doubt(
        NAME,
        f"An attack claimed {case.tally.outside} points that are farther than eps from their image or outside [0, 1]; "
        "they were not counted as fooled. The attack is wrong or its threat is not the one evaluated: robust accuracy "
        "may be too high until it is mended.",
        {"outside": case.tally.outside, "norm": case.threat.norm, "eps": case.threat.eps},
    )

"""What an evaluation says beside its verdicts: doubts, curves and pictures."""

from dataclasses import dataclass
from typing import Any

from pipelines.evaluation.crew import Crew
from pipelines.evaluation.curve import curves
from pipelines.evaluation.doubting import UNEXAMINED, doubting
from pipelines.evaluation.journal import Journal
from pipelines.evaluation.pictures import pictures
from pipelines.evaluation.prepare import Evaluation
from trainers.evaluation.doubts import CHECKS
from trainers.evaluation.ledger import Ledger


@dataclass(frozen=True)
class Appendix:
    """``doubts``, ``checked``, ``curves`` as the evaluation's JSON holds them; ``pictures`` as the page takes them."""

    doubts: list[dict[str, Any]]
    checked: list[str]
    curves: list[dict[str, Any]]
    pictures: list[dict[str, Any]]


def appendix(evaluation: Evaluation, ledger: Ledger, journal: Journal, crew: Crew) -> Appendix:
    """As far as it was asked for."""
    config = evaluation.config
    return Appendix(
        doubts=_doubts(evaluation, ledger, journal, crew) if config["doubts"] else [],
        checked=list(CHECKS) if config["doubts"] else [],
        curves=curves(evaluation, ledger, journal, crew) if config["curve"]["draw"] else [],
        pictures=pictures(evaluation, ledger, crew) if config["report"]["pictures"] else [],
    )


def _doubts(evaluation: Evaluation, ledger: Ledger, journal: Journal, crew: Crew) -> list[dict[str, Any]]:
    """Looked for once; again where they could not be."""
    if journal.knows("doubts"):
        return list(journal.once("doubts", list))
    found = doubting(evaluation, ledger, crew)
    if not any(doubt["name"] == UNEXAMINED for doubt in found):
        journal.once("doubts", lambda: found)
    return found

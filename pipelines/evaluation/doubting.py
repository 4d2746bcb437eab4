"""The doubts about an evaluation, looked for at each of its threats."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import first_line
from pipelines.evaluation import findings
from pipelines.evaluation.crew import Crew
from pipelines.evaluation.evaluator import Evaluator
from pipelines.evaluation.prepare import Evaluation
from pipelines.evaluation.threats import title
from trainers.evaluation import doubts
from trainers.evaluation.ledger import Ledger
from trainers.threat import Threat

LOOKED_AT = 64
"""Examples that doubts are looked for on, all in the model at once; half as many for as long as memory runs out."""
UNEXAMINED = "not examined"


@dataclass(frozen=True)
class _Examine:
    """The question after doubts, for one chain."""

    rows: Tensor
    robust: Tensor
    threat: Threat
    tally: doubts.Tally
    stated: float | None

    def __call__(self, evaluator: Evaluator) -> list[dict[str, Any]]:
        count = len(self.rows)
        while True:
            try:
                return [asdict(doubt) for doubt in self._look(evaluator, self.rows[:count], self.robust[:count])]
            except torch.OutOfMemoryError as error:
                if count < 16:
                    return [_unexamined(error)]
                count //= 2
            except Exception as error:  # verdicts that took hours are not thrown away for a model that breaks a check
                return [_unexamined(error)]

    def _look(self, evaluator: Evaluator, rows: Tensor, robust: Tensor) -> list[doubts.Doubt]:
        order, device = evaluator.order, evaluator.device
        return doubts.examine(
            evaluator.given,
            order.exam.batch(rows, device),
            robust.to(device),
            self.threat,
            self.tally,
            order.classes,
            order.effort.seed,
            self.stated,
        )


def _unexamined(error: Exception) -> dict[str, Any]:
    """A doubt of its own: what could not be looked for was not found absent."""
    return {
        "name": UNEXAMINED,
        "explanation": "The model could not be examined: a check ended with an error. So nothing shows that these "
        "numbers do not mislead; repair the model where the error is its own.",
        "evidence": {"error": f"{type(error).__name__}: {first_line(error)}"},
    }


def doubting(evaluation: Evaluation, ledger: Ledger, crew: Crew) -> list[dict[str, Any]]:
    """At every threat; a doubt that several raise is told once, with the threats that do."""
    rows = torch.arange(len(ledger.ids))[:: max(1, len(ledger.ids) // LOOKED_AT)][:LOOKED_AT]
    questions = [
        _Examine(
            rows,
            ledger.robust(number)[rows],
            chain.threat,
            findings.tally(ledger, number, chain),
            evaluation.candidate.stated_clean_accuracy,
        )
        for number, chain in enumerate(evaluation.chains)
    ]
    found: dict[str, dict[str, Any]] = {}
    for chain, answer in zip(evaluation.chains, crew.ask(questions), strict=True):
        for doubt in answer:
            told = found.setdefault(doubt["name"], {**doubt, "evidence": {**doubt["evidence"], "at": ""}})
            told["evidence"]["at"] = ", ".join(filter(None, (told["evidence"]["at"], title(chain.threat))))
    return [found[name] for name in (UNEXAMINED, *doubts.CHECKS) if name in found]

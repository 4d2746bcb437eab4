"""Curves of accuracy against eps, one a norm."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipelines.evaluation.crew import Crew
from pipelines.evaluation.evaluator import Evaluator
from pipelines.evaluation.journal import Journal
from pipelines.evaluation.prepare import Evaluation
from trainers.attacks.apgd import APGD
from trainers.evaluation.curves import shown_up_to, smallest_eps
from trainers.evaluation.intervals import wilson
from trainers.evaluation.ledger import Ledger
from trainers.threat import Threat
from trainers.types import Attack

CHUNK = 64
"""Examples whose smallest eps is one question."""
POINTS = 41


@dataclass(frozen=True)
class _Smallest:
    """The question after the smallest eps of some examples."""

    rows: Tensor
    known: Tensor
    threat: Threat
    largest: float
    steps: int
    halvings: int

    def __call__(self, evaluator: Evaluator) -> dict[str, list[float]]:
        order = evaluator.order
        found = smallest_eps(
            self._attack, self.threat, evaluator.model, order.exam, self.rows, self.known, self.largest,
            order.classes, order.effort, self.halvings,
        )  # fmt: skip
        return {"ids": found.ids.tolist(), "eps": found.eps.tolist()}

    def _attack(self, threat: Threat) -> Attack:
        return APGD(threat, steps=self.steps)


def curves(evaluation: Evaluation, ledger: Ledger, journal: Journal, crew: Crew) -> list[dict[str, Any]]:
    curve = evaluation.config["curve"]
    found = []
    for norm in dict.fromkeys(chain.threat.norm for chain in evaluation.chains):
        numbers = [i for i, chain in enumerate(evaluation.chains) if chain.threat.norm == norm]
        threat = evaluation.chains[numbers[0]].threat
        known = torch.where(ledger.right, torch.inf, 0.0).double()
        for i in numbers:
            fooled = ledger.right & ~ledger.robust(i, evaluation.chains[i].length)
            known = torch.where(fooled, known.clamp_max(evaluation.chains[i].threat.eps), known)
        channels, height, width = evaluation.exam.input_size
        pixels = channels * height * width
        largest = {"Linf": 1.0, "L2": pixels**0.5}.get(norm, float(pixels))
        chunks = torch.arange(len(known)).split(CHUNK)
        smallest = torch.cat([
            torch.tensor(answer["eps"], dtype=torch.float64)
            for answer in _chunked(journal, f"curve-{norm}-{curve['steps']}-{curve['halvings']}", crew, [
                _Smallest(rows, known[rows], threat, largest, curve["steps"], curve["halvings"]) for rows in chunks
            ])
        ])  # fmt: skip
        asked = evaluation.chains[numbers[-1]].threat.eps
        label = f"apgd-ce, {curve['steps']} steps, and the verdicts of {evaluation.attack}"
        found.append(_curve(norm, label, smallest, min(shown_up_to(smallest, asked), largest)))
    return found


def _chunked(journal: Journal, name: str, crew: Crew, questions: Sequence[_Smallest]) -> list[dict[str, Any]]:
    """The answers, written down as they are had, as many at a time as there are workers."""
    keys = [f"{name}-{int(question.rows[0])}" for question in questions]
    missing = [number for number, key in enumerate(keys) if not journal.knows(key)]
    for start in range(0, len(missing), crew.workers):
        some = missing[start : start + crew.workers]
        for number, answer in zip(some, crew.ask([questions[n] for n in some]), strict=True):
            journal.once(keys[number], partial(dict, answer))
    return [journal.once(key, dict) for key in keys]


def _curve(norm: str, label: str, smallest: Tensor, end: float) -> dict[str, Any]:
    n, eps = len(smallest), [end * i / (POINTS - 1) for i in range(POINTS)]
    held = [int((smallest > point).sum()) for point in eps]
    return {
        "norm": norm,
        "attack": label,
        "eps": eps,
        "accuracy": [count / n for count in held],
        "interval": [list(wilson(count, n)) for count in held],
    }

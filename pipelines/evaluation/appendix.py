"""What an evaluation says beside its verdicts: doubts, curves and pictures, each found out once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import first_line
from pipelines.evaluation import findings
from pipelines.evaluation.crew import Crew
from pipelines.evaluation.evaluator import Evaluator
from pipelines.evaluation.journal import Journal
from pipelines.evaluation.prepare import Evaluation
from pipelines.evaluation.threats import title
from trainers.attacks.apgd import APGD
from trainers.evaluation import doubts
from trainers.evaluation.curves import shown_up_to, smallest_eps
from trainers.evaluation.intervals import wilson
from trainers.evaluation.ledger import Ledger
from trainers.evaluation.meter import Meter
from trainers.evaluation.pictures import Seen, look, telling
from trainers.threat import Threat
from trainers.types import Attack

LOOKED_AT = 64
"""Examples that doubts are looked for on, all in the model at once; half as many for as long as memory runs out."""
UNEXAMINED = "not examined"
CHUNK = 64
"""Examples whose smallest eps is one question."""
POINTS = 41
"""Of a curve."""


@dataclass(frozen=True)
class Appendix:
    """``doubts``, ``checked``, ``curves`` as the evaluation's JSON holds them; ``pictures`` as the page takes them."""

    doubts: list[dict[str, Any]]
    checked: list[str]
    curves: list[dict[str, Any]]
    pictures: list[dict[str, Any]]


def appendix(evaluation: Evaluation, ledger: Ledger, journal: Journal, crew: Crew) -> Appendix:
    config = evaluation.config
    found = journal.once("doubts", lambda: _doubts(evaluation, ledger, crew)) if config["doubts"] else []
    curves = _curves(evaluation, ledger, journal, crew) if config["curve"]["draw"] else []
    return Appendix(
        doubts=found,
        checked=list(doubts.CHECKS) if config["doubts"] else [],
        curves=curves,
        pictures=_pictures(evaluation, ledger, crew) if config["report"]["pictures"] else [],
    )


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


def _doubts(evaluation: Evaluation, ledger: Ledger, crew: Crew) -> list[dict[str, Any]]:
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


def _curves(evaluation: Evaluation, ledger: Ledger, journal: Journal, crew: Crew) -> list[dict[str, Any]]:
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


@dataclass(frozen=True)
class _Look:
    """The question how ``model`` (None: the one evaluated) sees some examples."""

    rows: Tensor
    attack: Attack
    model: nn.Module | None

    def __call__(self, evaluator: Evaluator) -> Seen:
        order, device = evaluator.order, evaluator.device
        model = evaluator.model if self.model is None else Meter(self.model.to(device), sizes=())
        return look(self.attack, model, order.exam.batch(self.rows, device), order.classes, order.effort)


def _pictures(evaluation: Evaluation, ledger: Ledger, crew: Crew) -> list[dict[str, Any]]:
    """The examples at the first threat, the model beside the other where there is one."""
    exam, chain = evaluation.exam, evaluation.chains[0]
    rows = telling(ledger.right, ledger.fooled_by[0] >= 0, exam.labels, evaluation.config["report"]["pictures"])
    shown: list[tuple[str, nn.Module | None]] = [(evaluation.candidate.title, None)]
    if evaluation.beside:
        shown.append((evaluation.beside.title, evaluation.beside.model))
    attack = chain.attack.members[0]
    answers = crew.ask([_Look(rows, attack, model) for _, model in shown])
    x = exam.batch(rows).x
    return [
        {
            "id": int(exam.ids[row]),
            "label": exam.classes[int(exam.labels[row])],
            "image": _pixels(x[i]),
            "models": [
                _seen(name, seen, i, exam.classes) for (name, _), seen in zip(shown, answers, strict=True)
            ],
        }
        for i, row in enumerate(rows.tolist())
    ]  # fmt: skip


def _seen(name: str, seen: Seen, i: int, classes: Sequence[str]) -> Mapping[str, Any]:
    fooled = bool(seen.fooled[i])
    return {
        "title": name,
        "prediction": classes[int(seen.prediction[i])],
        "gradient": _pixels(seen.gradient[i]),
        "adversarial": _pixels(seen.adversarial[i]) if fooled else None,
        "adversarial_prediction": classes[int(seen.adversarial_prediction[i])] if fooled else None,
        "distance": float(seen.distance[i]),
    }


def _pixels(x: Tensor) -> Any:
    """``(H, W, C)``, as pictures are drawn."""
    return x.permute(1, 2, 0).numpy()

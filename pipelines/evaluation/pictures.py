"""Some examples as the model sees them, and as another does, for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pipelines.evaluation.crew import Crew
from pipelines.evaluation.evaluator import Evaluator
from pipelines.evaluation.prepare import Evaluation
from trainers.evaluation.ledger import Ledger
from trainers.evaluation.meter import Meter
from trainers.evaluation.pictures import Seen, look, telling
from trainers.types import Attack


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


def pictures(evaluation: Evaluation, ledger: Ledger, crew: Crew) -> list[dict[str, Any]]:
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

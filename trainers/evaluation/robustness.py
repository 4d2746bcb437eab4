"""A whole cascade against a model in one process: who withstands every attack, and which one fooled the others."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.attacks.cascade import Cascade
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.exam import Exam
from trainers.evaluation.ledger import Ledger
from trainers.evaluation.meter import Meter
from trainers.evaluation.piece import CLEAN
from trainers.evaluation.task import Task


@dataclass(frozen=True)
class Verdicts:
    """Per example, in the order of the exam: ``ids``, ``y``, ``clean`` and ``attacked`` predictions ``(N,) int64``,
    ``distance`` of the adversarial example (0 without one), and ``by``: the attack that fooled it, ``"clean"`` where
    it is wrong as it is and ``""`` where it withstood them all."""

    ids: Tensor
    y: Tensor
    clean: Tensor
    attacked: Tensor
    distance: Tensor
    by: tuple[str, ...]

    @property
    def robust(self) -> Tensor:
        return torch.tensor([name == "" for name in self.by])

    @property
    def clean_accuracy(self) -> float:
        """Of an image that could not be read, or whose logits are not numbers, the prediction means nothing."""
        return (len(self.by) - self.by.count(CLEAN)) / len(self.by)

    @property
    def robust_accuracy(self) -> float:
        return float(self.robust.double().mean())


def evaluate(cascade: Cascade, model: nn.Module, exam: Exam, classes: int, effort: Effort | None = None) -> Verdicts:
    """The examples of ``exam`` under every attack of ``cascade``.

    Errors: ``ValueError`` for no examples, ids that are not unique, labels or images that do not fit.
    """
    effort = effort or Effort()
    if not len(exam.ids):
        raise ValueError("no examples to evaluate on: the split is empty; choose another")
    if len(exam.ids.unique()) < len(exam.ids):
        raise ValueError("two examples have the same id: verdicts are told apart by it; give each its own")
    members = {member.name: member for member in cascade.members}
    ledger = Ledger(exam.ids, [list(members)], effort.reference)
    metered = model if isinstance(model, Meter) else Meter(model, sizes=())
    while item := ledger.take(effort.item_size):
        task = Task(item, members.get(item.attack), metered, exam, classes, effort)
        for _ in task:
            pass
        ledger.add(task.piece())
    return Verdicts(exam.ids, exam.labels, ledger.clean, ledger.attacked[0], ledger.distance[0], tuple(ledger.by(0)))

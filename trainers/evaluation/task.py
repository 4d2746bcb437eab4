"""An item of work on its way: walked, written down in the middle, taken up again."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from trainers import state_file
from trainers.attacks.search import misclassified
from trainers.evaluation.attack_run import AttackRun, Effort, Ended
from trainers.evaluation.exam import Exam
from trainers.evaluation.ledger import Item
from trainers.evaluation.meter import Meter
from trainers.evaluation.piece import Piece
from trainers.modes import full_float32, mode
from trainers.types import Attack, Batch


class Task:
    """``item`` on ``model``: iterate, and it is worked on between two turns; then ``piece()`` says how it ended.

    ``attack`` is the item's (None for the clean step).  ``save`` writes down all there is to know between two turns,
    and ``resumed`` makes the task that goes on from there.

    Errors: ``Unfit`` for images that cannot be read, and images, labels and logits that do not go together.
    """

    def __init__(
        self, item: Item, attack: Attack | None, model: Meter, exam: Exam, classes: int, effort: Effort
    ) -> None:
        self.item, self._attack, self._model, self._exam = item, attack, model, exam
        self._classes, self._effort = classes, effort
        self._known = [Piece.empty(item.chain, item.attack)]
        self._spent = self._known[0].cost
        self._left, self._rows = item.rows, dict[str, Tensor]()
        self._run: AttackRun | None = None

    def __iter__(self) -> Iterator[None]:
        turns = self._classify() if self._attack is None else self._attacked(self._attack)
        model, began = self._model, time.perf_counter()
        forwards, backwards = model.forwards, model.backwards
        for piece in turns:
            if piece is not None:
                self._known.append(piece)
            self._spent["forwards"] += model.forwards - forwards
            self._spent["backwards"] += model.backwards - backwards
            self._spent["seconds"] += time.perf_counter() - began
            yield
            began, forwards, backwards = time.perf_counter(), model.forwards, model.backwards

    def piece(self) -> Piece:
        """What is known by now of the item's examples, and what it has cost."""
        return Piece.joined(self._known).costing(self._spent)

    def save(self, path: Path) -> bool:
        """Write the middle to ``path``, whole or not at all; False where the attack has none."""
        rows = self._run.rows if self._run is not None else None
        if rows is None:
            return False
        piece = self.piece().plain()
        about = {"piece": piece, "item": {**vars(self.item), "rows": self.item.rows.tolist()}}
        state_file.write(path, dict(rows), about)
        return True

    @classmethod
    def resumed(
        cls,
        path: Path,
        attack: Callable[[Item], Attack | None],
        model: Meter,
        exam: Exam,
        classes: int,
        effort: Effort,
        device: torch.device,
    ) -> "Task":
        """Errors: ``trainers.state_file.StateError`` for a file that is not whole."""
        about, rows = state_file.read(path)
        item = Item(**{**about["item"], "rows": torch.tensor(about["item"]["rows"], dtype=torch.int64)})
        task = cls(item, attack(item), model, exam, classes, effort)
        task._known = [Piece.of_plain(about["piece"])]
        task._spent = task._known[0].cost
        begun = torch.cat([task._known[0].ids, rows["id"]])
        task._left = item.rows[~torch.isin(exam.ids[item.rows], begun)]
        task._rows = {name: value.to(device) for name, value in rows.items()}
        return task

    def _batches(self) -> Iterator[Batch]:
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        for rows in self._left.split(self._effort.batch_size) if len(self._left) else ():
            try:
                batch = self._exam.batch(rows, device)
            except ValueError as error:  # an image that cannot be read, of another size ...
                raise Unfit(str(error)) from error
            yield batch

    @torch.no_grad()
    def _classify(self) -> Iterator[Piece]:
        with mode(self._model, train=False):
            for batch in self._batches():
                check(batch, self._classes)
                with full_float32():
                    logits = self._model(batch.x)
                _check_shape(logits, len(batch.x), self._classes)
                corrupt = {i: self._exam.corrupt[i] for i in batch.keys.tolist() if i in self._exam.corrupt}
                unread = torch.tensor([i in corrupt for i in batch.keys.tolist()], device=logits.device)
                wrong = misclassified(logits, batch.y) | unread
                none = torch.zeros_like(wrong)
                ended = Ended(batch.keys, wrong, batch.x, logits.argmax(1), none, none, logits.isfinite().all(1))
                yield self._piece(ended, corrupt)

    def _attacked(self, attack: Attack) -> Iterator[Piece | None]:
        self._run = AttackRun(attack, self._model, self._batches(), self._classes, self._effort, self._rows or None)
        for ended in self._run:
            yield None if ended is None else self._piece(ended)

    def _piece(self, ended: Ended, corrupt: dict[int, str] | None = None) -> Piece:
        parts = {name: getattr(ended, name).cpu() for name in Ended._fields if name != "x_adv"}
        parts["distance"] = parts["distance"].double()
        return Piece(self.item.chain, self.item.attack, corrupt=corrupt or {}, **parts)


class Unfit(ValueError):
    """Images, labels or logits that do not go together."""


def check(batch: Batch, classes: int) -> None:
    """``Unfit`` for images outside [0, 1] and labels that are no class of the model's."""
    low, high = float(batch.x.min()), float(batch.x.max())
    if not (low >= 0 and high <= 1):
        cause = "8-bit images that were not divided by 255" if high > 1.5 and low >= 0 else "images already normalised"
        raise Unfit(
            f"images reach from {low:.4g} to {high:.4g}, not within [0, 1]: probably {cause}; give pixels in [0, 1], "
            "the model normalises them itself"
        )
    low_y, high_y = int(batch.y.min()), int(batch.y.max())
    if low_y < 0 or high_y >= classes:
        raise Unfit(f"labels reach from {low_y} to {high_y}, the model has {classes} classes, 0 to {classes - 1}")


def _check_shape(logits: Tensor, n: int, classes: int) -> None:
    if logits.shape != (n, classes):
        raise Unfit(
            f"the model gives {tuple(logits.shape)} for {n} images of {classes} classes; it must give one logit a "
            "class, (N, K)"
        )

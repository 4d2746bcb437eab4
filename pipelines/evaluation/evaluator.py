"""What each process of an evaluation does: hold the model and the examples, and work off what it is asked for."""

import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines import storage
from trainers import state_file
from trainers.attacks.cascade import Cascade
from trainers.data.held_out import HeldOut
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.ledger import Item
from trainers.evaluation.piece import CLEAN
from trainers.evaluation.prepared import prepared
from trainers.evaluation.task import Task
from trainers.memory import keep_freed
from trainers.types import Attack

SAMPLE = 8
"""Images that a prepared network is compared with the given one on."""
SHARE = 50
"""Writing a middle down may take one part in so many of the time."""


@dataclass(frozen=True)
class Order:
    """What is evaluated, as a driver hands it to its evaluators.

    ``chains``: for each threat its attacks in the order they are tried; ``middles``: where the middle of a long item is
    written down every ``seconds``.
    """

    model: nn.Module
    exam: HeldOut
    chains: Sequence[Cascade]
    effort: Effort
    compile: bool
    threads: int | None
    middles: str
    seconds: float

    @property
    def classes(self) -> int:
        return len(self.exam.classes)

    def attack(self, item: Item) -> Attack | None:
        if item.attack == CLEAN:
            return None
        return next(member for member in self.chains[item.chain].members if member.name == item.attack)


class Evaluator:
    """One process's part.  Its answers are plain dicts: they travel, and are written down as JSON."""

    def __init__(self, order: Order, device: str) -> None:
        if order.threads:
            torch.set_num_threads(order.threads)
        keep_freed()
        self.order, self.device = order, torch.device(device)
        sample = order.exam.batch(torch.arange(min(SAMPLE, len(order.exam))), self.device).x
        self.given = order.model.to(self.device).eval()
        self.model = prepared(self.given, sample, order.compile)

    def ready(self) -> None:
        """Answers once it is made."""

    def work(self, item: Item, pulse: Callable[[], None] | None = None) -> dict[str, Any]:
        """The piece that ``item`` ends with, from its middle if one was written down."""
        order, attack = self.order, self.order.attack(item)
        middle = f"{order.middles}/{key(item)}.safetensors"
        task = self._resumed(middle) if attack is not None else None
        task = task or Task(item, attack, self.model, order.exam, order.classes, order.effort)
        with _drawing(self.device, order.effort.seed, item):
            self._walk(task, middle, pulse)
        return task.piece().plain()

    def _walk(self, task: Task, middle: str, pulse: Callable[[], None] | None) -> None:
        order = self.order
        saved, pause = time.monotonic(), order.seconds
        for _ in task:
            if time.monotonic() - saved > pause:
                began = time.monotonic()
                self._save(task, middle)
                saved = time.monotonic()
                pause = max(order.seconds, SHARE * (saved - began))
            if pulse is not None:
                pulse()

    def ask(self, question: Callable[["Evaluator"], Any]) -> Any:
        """Anything else that needs the model and the examples."""
        return question(self)

    def _save(self, task: Task, middle: str) -> None:
        if "://" not in middle:
            task.save(Path(middle))
            return
        with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
            if task.save(Path(folder) / "middle"):
                storage.write(middle, (Path(folder) / "middle").read_bytes())

    def _resumed(self, middle: str) -> Task | None:
        """The task that was written down there; one that is not whole is begun anew."""
        order = self.order
        with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
            local = _fetched(middle, Path(folder))
            if local is None:
                return None
            try:
                return Task.resumed(
                    local, order.attack, self.model, order.exam, order.classes, order.effort, self.device
                )
            except state_file.StateError:
                return None


@contextmanager
def _drawing(device: torch.device, seed: int, item: Item) -> Iterator[None]:
    """torch's generators set by the item, for models that draw random numbers, and as they were afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed((seed << 32) + zlib.crc32(key(item).encode()))
        yield


def key(item: Item) -> str:
    """A name for the item's files, its own."""
    return f"{item.chain}-{item.attack}-{zlib.crc32(item.rows.numpy().tobytes()):08x}-{len(item.rows)}"


def item_of(middle: str) -> Item | None:
    """The item whose middle this is; None if it is not whole."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        local = _fetched(middle, Path(folder))
        try:
            about: Mapping[str, Any] = state_file.read(local)[0]["item"] if local else {}
        except state_file.StateError:
            return None
    return Item(**{**about, "rows": torch.tensor(about["rows"])}) if about else None


def _fetched(uri: str, folder: Path) -> Path | None:
    if "://" not in uri:
        return Path(uri) if Path(uri).exists() else None
    found = storage.files(uri)
    if not found.exists(uri):
        return None
    with found.open(uri) as file:
        (folder / "middle").write_bytes(file.read())
    return folder / "middle"

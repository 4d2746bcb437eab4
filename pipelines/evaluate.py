"""``holdfast evaluate``: a model, a threat, an attack; a number with its interval, its doubts and its report."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from pipelines import cluster, compose, places
from pipelines.errors import Misuse
from pipelines.evaluation import conclude
from pipelines.evaluation.appendix import appendix
from pipelines.evaluation.crew import Actors, Crew, Here
from pipelines.evaluation.evaluator import Order
from pipelines.evaluation.journal import Journal
from pipelines.evaluation.prepare import Evaluation, located, prepare
from pipelines.evaluation.threats import title
from pipelines.progress import EVERY_SECONDS
from pipelines.redact import redact_text
from pipelines.tracking import holding, runs
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.ledger import Item, Ledger
from trainers.evaluation.piece import CLEAN
from trainers.evaluation.task import Unfit


@dataclass(frozen=True)
class Seat:
    """Where it runs: ``resources`` of each of Ray's workers, or None for this process."""

    use_gpu: bool
    resources: dict[str, float] | None
    doubts: Iterable[str]


def evaluate(
    config: dict[str, Any], console: Console, command: str = "", debug: bool = False, what: str = holding.EVALUATE
) -> dict[str, Any]:
    """Refuse what cannot be judged, attack, look for doubts, report; the same command continues its journal.

    ``what``: the work its cost is counted under.  Errors: ``Misuse`` before any work; ``Failure`` and ``Lost`` with the
    journal kept.
    """
    config = located(config)
    evaluation = prepare(config)
    digest = compose.digest(evaluation.identity)
    places.owner(config["storage"], evaluation.name, digest, evaluation.identity)
    runs.check(config["tracking"]["uri"])
    seat = _seat(config, debug)
    for doubt in seat.doubts:
        console.print(f"[yellow]warning[/] {doubt}", soft_wrap=True)
    for note in evaluation.notes:
        console.print(f"note: {note}", soft_wrap=True)
    ledger = Ledger(evaluation.exam.ids, [chain.names for chain in evaluation.chains], config["reference"])
    journal = Journal(evaluation.place, digest)
    pieces, middles = journal.read(ledger)
    journal.recognise(evaluation.answers())
    places.claim(config["storage"], evaluation.name, digest, evaluation.identity)
    places.owner(config["storage"], evaluation.name, digest, evaluation.identity)  # nobody came in between
    console.print(_opening(evaluation), soft_wrap=True)
    if pieces or middles:
        console.print(f"note: continuing from {pieces} finished items and {len(middles)} begun ones", soft_wrap=True)
    with conclude.run(evaluation) as run_id, _held(evaluation, seat, run_id, what):
        with _crew(evaluation, seat, journal) as crew:
            _work(evaluation, ledger, journal, middles, crew, console)
            extra = appendix(evaluation, ledger, journal, crew)
            found = conclude.found(evaluation, ledger, extra, crew, run_id, command)
        conclude.leave(evaluation, ledger, found, extra, journal, console)
    return found


def _opening(evaluation: Evaluation) -> str:
    exam = evaluation.exam
    judged = ", ".join(title(chain.threat) for chain in evaluation.chains)
    where = redact_text(evaluation.place)
    return f"{evaluation.name}: {len(exam):,} of {exam.of:,} images at {judged}, in {where}"


def _seat(config: Mapping[str, Any], debug: bool) -> Seat:
    """This process for one worker, unless a cluster is named; Ray's workers otherwise.  Errors: ``Misuse``."""
    if config["workers"] > 1 or os.environ.get("RAY_ADDRESS"):
        cluster.connect(debug)
        return Seat(*cluster.placement(config), places.doubts(config, cluster.size()))
    if config["device"] == "cuda" and not torch.cuda.is_available():
        raise Misuse("device=cuda: this machine has no GPU; use device=cpu, or point RAY_ADDRESS at a cluster with one")
    return Seat(config["device"] != "cpu" and torch.cuda.is_available(), None, ())


def _held(evaluation: Evaluation, seat: Seat, run_id: str, what: str) -> AbstractContextManager[None]:
    config = evaluation.config
    resources = seat.resources or {"CPU": torch.get_num_threads(), "GPU": float(seat.use_gpu)}
    return holding.held(config["tracking"]["uri"], run_id, what, config["workers"], resources)


@contextmanager
def _crew(evaluation: Evaluation, seat: Seat, journal: Journal) -> Iterator[Crew]:
    config = evaluation.config
    order = Order(
        model=evaluation.candidate.model,
        exam=evaluation.exam,
        chains=[chain.whole for chain in evaluation.chains],
        effort=_effort(config, every=5 if seat.use_gpu else 1),
        compile=config["compile"],
        threads=max(1, int(seat.resources["CPU"])) if seat.resources else None,
        middles=journal.middles,
        seconds=config["journal"]["seconds"],
    )
    crew: Crew
    if seat.resources is None:
        crew = Here(order, "cuda" if seat.use_gpu else "cpu")
    else:
        crew = Actors(order, config["workers"], seat.use_gpu, seat.resources)
    try:
        yield crew
    finally:
        with suppress(Exception):
            crew.close()


def _effort(config: Mapping[str, Any], every: int = 1) -> Effort:
    return Effort(config["seed"], config["batch_size"], config["reference"], every)


def _work(
    evaluation: Evaluation,
    ledger: Ledger,
    journal: Journal,
    middles: list[Item],
    crew: Crew,
    console: Console,
) -> None:
    """Until every example is through every attack, or fooled."""
    effort = _effort(evaluation.config)

    def take() -> Item | None:
        return middles.pop() if middles else ledger.take(effort.item_size, crew.workers)

    with console.status(evaluation.name) as status:
        news = _News(evaluation, ledger, console)
        try:
            for item, piece in crew.work(take, middles.append, news.beat):
                ledger.add(piece)
                journal.add(item, piece)
                news.tell()
                status.update(news.now())
        except Unfit as error:
            raise Misuse(str(error)) from error


class _News:
    """What a person sees while the attacks run: a line for each that has ended, and a sign of life in between."""

    def __init__(self, evaluation: Evaluation, ledger: Ledger, console: Console) -> None:
        self._evaluation, self._ledger, self._console = evaluation, ledger, console
        self._told = {(number, name) for number, name, _ in ledger.ended()}
        self._began = self._spoke = time.monotonic()

    def tell(self) -> None:
        for number, name, left in self._ledger.ended():
            if (number, name) not in self._told:
                self._told.add((number, name))
                self._say(f"{self._title(number, name)}: {left} of {len(self._ledger.ids)} left")

    def beat(self) -> None:
        if not self._console.is_terminal and time.monotonic() - self._spoke > EVERY_SECONDS:
            self._say(self.now())

    def now(self) -> str:
        for number, name, there in self._ledger.unfinished():
            return f"{self._title(number, name)}: {there} examples to go"
        return self._evaluation.name

    def _title(self, number: int, name: str) -> str:
        return name if name == CLEAN else f"{title(self._evaluation.chains[number].threat)}  {name}"

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        self._console.print(f"{line}  ({self._spoke - self._began:.0f} s)", soft_wrap=True)

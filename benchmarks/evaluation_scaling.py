"""How the work of ``holdfast evaluate`` is shared among workers on Ray, and how much of it a kill -9 loses.

    python benchmarks/evaluation_scaling.py [--quick] [--json FILE] [--n N] [--repeats N] [--kills N]

AutoAttack standard, Linf 0.1, on images of the digits' test split that no training has seen.  The network is that of
``recipe=digits_pgd`` (3 blocks, width 24), trained for a few epochs of PGD-3 and kept in ``--cache``.

``two_workers_over_one``: seconds from the first item to the last verdict with two workers over those with one, all on
Ray, one thread a worker, journal and all.  Actors are there, and each has done a first small item, before the clock
starts.  The arms take turns (1, 2, 2, 1, ...); a ratio is of one pair.
``two_loops_over_one``: the same of bare forwards on the same actors, which wait for nothing and share nothing but the
machine: two virtual processors of one core give far less than twice the speed of one.
``work_of_two_over_one``: the same of the seconds that workers were at work, summed over them: 1 where smaller items and
a busier machine cost nothing.  Half of it is what two workers that are never idle would need.
``work_lost_to_a_kill``: see ``evaluation_kills.py``.
``verdicts_differing``: examples, of both parts, that another number of workers, or the kills, gave another verdict.

The whole takes about 20 minutes on 2 cores.  ``--quick`` has one pair of arms, in which Square has 1000 of its 5000
queries.
"""

import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import arms, evaluation_kills
from benchmarks.report import Rows, parser
from benchmarks.science import add
from pipelines import cluster
from pipelines.compose import compose
from pipelines.evaluation.crew import Actors
from pipelines.evaluation.evaluator import Evaluator, Order
from pipelines.evaluation.journal import Journal
from trainers import models
from trainers.attacks.cascade import Cascade, autoattack
from trainers.attacks.square import Square
from trainers.data.digits import Digits
from trainers.data.held_out import HeldOut
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.ledger import Item, Ledger
from trainers.threat import Linf

NETWORK, EPS, QUERIES = "at_gelu_3", 0.1, 5000
FIRST = 4
"""Images in the item that comes before the clock starts."""
FORWARDS, ALIKE = 2000, 32
"""Bare forwards of so many images, which show what the machine allows."""

READING = """How to read it
Shares and ratios: mean over n pairs of arms or n kills; spread: standard deviation; interval: 95%, Student's t.
Everything is in seconds by the clock of this machine: nothing else should run on it meanwhile."""


@dataclass(frozen=True)
class Arm:
    """One way through all attacks: ``seconds`` by the clock; ``work``: those of all workers together, ``square`` of
    them in Square; ``verdicts``: of each example the attack that fooled it; ``loop``: of bare forwards."""

    seconds: float
    work: float
    square: float
    verdicts: tuple[str, ...]
    loop: float = 1.0


def trained(cache: Path, epochs: int) -> Path:
    """The folder of the saved network, trained unless it is there."""
    key = hashlib.sha256(f"{arms.ARMS[NETWORK]} {epochs}".encode()).hexdigest()[:16]
    place = cache / f"evaluation-{key}"
    if not (place / "model.json").exists():
        arm, images = arms.ARMS[NETWORK], arms.data(seed=0)
        model = arms.network(arm, 0, images)
        arms.descend(model, arm.objective, images, arms.settings(0, epochs))
        models.save(model, place)
    return place


def one_arm(workers: int, model: nn.Module, exam: HeldOut, cascade: Cascade, folder: Path) -> Arm:
    """As ``pipelines.evaluate`` works its items off, with the settings it has by default."""
    config = compose("evaluate", [])
    placed = {"workers": workers, "device": "cpu", "parallel": {"cpus_per_worker": 1}}
    use_gpu, resources = cluster.placement(placed)
    effort, journal = Effort(config["seed"], config["batch_size"]), Journal(str(folder), "benchmark")
    order = Order(
        model,
        exam,
        [cascade],
        effort,
        compile=False,
        threads=1,
        middles=journal.middles,
        seconds=config["journal"]["seconds"],
    )
    ledger, returned = Ledger(exam.ids, [[member.name for member in cascade.members]]), list[Item]()

    def take() -> Item | None:
        return returned.pop() if returned else ledger.take(effort.item_size, workers)

    crew = Actors(order, workers, use_gpu, resources)
    try:
        warm_up(crew, cascade.members[0].name)
        began = time.perf_counter()
        for item, piece in crew.work(take, returned.append, idle):
            ledger.add(piece)
            journal.add(item, piece)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        crew.ask([Loop(FORWARDS // workers)] * workers)
        loop = time.perf_counter() - began
    finally:
        crew.close()
    spent = {name: piece.seconds for (_, name), piece in ledger.costs.items()}
    return Arm(seconds, sum(spent.values()), spent.get("square", 0.0), tuple(ledger.by(0)), loop)


@dataclass(frozen=True)
class Loop:
    """Forwards of a batch, and nothing else."""

    forwards: int

    def __call__(self, evaluator: Evaluator) -> None:
        x = evaluator.order.exam.batch(torch.arange(min(ALIKE, len(evaluator.order.exam)))).x
        with torch.no_grad():
            for _ in range(self.forwards):
                evaluator.model(x)


def warm_up(crew: Actors, attack: str) -> None:
    """A first small item on each worker, once all of them are there."""
    while len(set(crew.ask([process] * crew.workers))) < crew.workers:
        pass
    items = iter([Item(0, attack, torch.arange(FIRST))] * crew.workers)
    for _ in crew.work(lambda: next(items, None), idle, idle):
        pass


def process(_: Any) -> int:
    """Which one answers."""
    return os.getpid()


def idle(*_: Item) -> None:
    """Nothing is to be done."""


def pairs(saved: Path, n: int, queries: int, repeats: int) -> list[tuple[Arm, Arm]]:
    """Of each pair the arm with one worker and that with two."""
    model, exam = models.load(saved), HeldOut(Digits(), limit=n)
    members = autoattack(Linf(EPS), "standard", len(exam.classes)).members
    cascade = Cascade([Square(Linf(EPS), queries) if member.name == "square" else member for member in members])
    found = []
    for i in range(repeats):
        pair = dict[int, Arm]()
        for workers in (1, 2) if i % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as folder:
                pair[workers] = one_arm(workers, model, exam, cascade, Path(folder))
            print(f"pair {i}: {workers} on Ray took {pair[workers].seconds:.1f} s", flush=True)
        found.append((pair[1], pair[2]))
    return found


def add_scaling(rows: Rows, found: Sequence[tuple[Arm, Arm]], queries: int) -> int:
    """How many examples have another verdict in some arm than in the first."""
    n, alone = len(found[0][0].verdicts), statistics.median(one.seconds for one, _ in found)
    note = f"{n} images, {queries} queries of Square, {alone:.0f} s with one"
    add(rows, "two_workers_over_one", [two.seconds / one.seconds for one, two in found], "<= 0.55", note)
    note = f"{FORWARDS} forwards, half of them on each of two: what this machine allows"
    add(rows, "two_loops_over_one", [two.loop / one.loop for one, two in found], note=note)
    add(rows, "work_of_two_over_one", [two.work / one.work for one, two in found])
    columns = zip(*(arm.verdicts for pair in found for arm in pair), strict=True)
    return sum(len(set(verdicts)) > 1 for verdicts in columns)


def expected(one: Arm, n: int, queries: int) -> float:
    """About how many seconds ``n`` images take with all queries of Square, after an arm with one worker."""
    return (one.seconds + one.square * (QUERIES / queries - 1)) * n / len(one.verdicts)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--n", type=int, help="images (256 in the arms, 192 in what is killed; quick: 128, 96)")
    options.add_argument("--repeats", type=int, help="pairs of arms (3; quick: 1)")
    options.add_argument("--kills", type=int, help="of one evaluation (8; quick: 4)")
    options.add_argument("--queries", type=int, help="of Square, in the arms (5000; quick: 1000)")
    options.add_argument("--epochs", type=int, default=5, help="of training (5)")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of what is killed")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "holdfast" / "benchmarks")
    given = options.parse_args(arguments)
    quick = given.quick
    queries = given.queries or (1000 if quick else QUERIES)
    torch.set_num_threads(1)
    saved = trained(given.cache, given.epochs)
    rows = Rows(f"Sharing and losing the work of AutoAttack standard: digits, Linf {EPS}", READING)

    started = cluster.connect()
    found = pairs(saved, given.n or (128 if quick else 256), queries, given.repeats or (1 if quick else 3))
    if started:
        ray.shutdown()
    differing = add_scaling(rows, found, queries)

    n = given.n or (96 if quick else 192)
    settings = [f"model.source={saved.absolute()}", f"threats.Linf={EPS}", f"examples={n}", *given.set]
    guess = expected(found[0][0], n, queries) if quick else None
    whole, cut = evaluation_kills.courses(settings, given.kills or (4 if quick else 8), guess)
    differing += evaluation_kills.add_rows(rows, whole, cut, compose("evaluate", settings)["journal"]["seconds"])
    rows.add("verdicts_differing", value=differing, n=len(found[0][0].verdicts) + n, goal="0")
    rows.close(given.json)
    if differing:
        raise SystemExit(f"{differing} verdicts differ: the seconds are not of the same work")


if __name__ == "__main__":
    main()

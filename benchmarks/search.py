"""What ``holdfast tune`` saves over a full grid, and what a trial adds to its training.

    python benchmarks/search.py [--quick] [--json FILE] [--table FILE] [--seeds N] [--processes N]

The grid is 32 trainings of ``recipe=digits_gradnorm``: 8 weights, each times eps 0.1 the product that GradNorm feels,
by 4 activations.  Each is trained to the end with every training seed, and judged after every epoch on all 128
validation images by the recipe's PGD-5.  Trainings are deterministic, so that a search over this table finds, and
spends, what it would over trainings.  ``--table`` keeps it.

``compute_over_full_grid``: epochs of all trials, of unfinished ones too, until one has ended with the robust accuracy
of the grid's best point at full epochs, over the epochs of the full grid; every epoch is 17 x 2 standard steps.  The
searcher and ASHA are those that ``pipelines/search/tuner.py`` makes of ``search=digits_gradnorm``, its space replaced
by the grid's values, asked and told in Ray Tune's order; two trials at once take turns, an epoch each.  A search may go
on beyond its 16 trials; it is given up, and counted as 1, once it has spent a full grid.  It has to come within one
standard error, on 128 images, of the best point, which these images cannot tell from it; ``_exact`` asks for the best
point's very accuracy.  ``random_``: uniform draws, each trained in full.
``reached_in_16_trials``: share of searches that came there with the trials they ship with, ``spent_in_16_trials``: what
all of those cost, over the full grid.

``trial_overhead_seconds``: ``tuner.fit`` over a grid of k tiny trainings, one at a time, minus
``pipelines.train.train`` of the same k one after another in the same Ray, over k.  Under halving, as the shipped search
has it, each trial has a process of its own, which Ray Tune can end early; without, trials share one.
"""

import io
import itertools
import json
import math
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import arms
from benchmarks.report import Rows, parser
from benchmarks.science import deviation, t_interval
from trainers import optimizers
from trainers.attacks.pgd import PGD
from trainers.evaluation.accuracy import CleanAccuracy, RobustAccuracy
from trainers.loop import fit
from trainers.state import State
from trainers.threat import Linf

EPS, BLOCKS, AT_ONCE, SEARCHES, TRIALS = 0.1, 3, 2, 50, 3
JUDGE = PGD(Linf(EPS), steps=5)
KEYS = ("objective.weight", "model.activation")
WEIGHTS = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 5.5, 10.0)
ACTIVATIONS = ("gelu", "silu", "softplus", "relu")
TINY = (
    "recipe=digits_gradnorm",
    "epochs=1",
    "model.arguments.blocks=1",
    "model.arguments.width=8",
    "alarm.examples=16",
    "evaluation.examples=16",
    "evaluation.attack.steps=1",
)

Point = tuple[float, str]
"""Weight and activation."""
Curve = Sequence[tuple[float, float]]
"""Clean and robust accuracy after each epoch."""
Table = Mapping[Point, Curve]
"""The full grid, trained with one seed."""
Search = Callable[[Table, int], Iterator["Ended"]]
"""Of a seed of its own."""

READING = """How to read it
compute: mean over training seeds of the mean over 50 search seeds each, n trainings x searches; spread: standard
deviation over all of them; interval: 95%, Student's t over training seeds.
seconds: median of n; spread: interquartile range; they grow with what else a machine does, training_seconds too."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__.splitlines()[0], quick="one training seed and 12 epochs: under 15 minutes on 2 cores")
    options.add_argument("--table", type=Path, metavar="FILE", help="keep trainings there, and do not repeat them")
    options.add_argument("--seeds", type=int, help="of training: default 3, with --quick 1")
    options.add_argument("--processes", type=int, default=2, help="trainings at a time, one thread each")
    given = options.parse_args(arguments)

    torch.set_num_threads(1)
    rows = Rows("holdfast tune: compute to the grid's best, and what a trial adds", READING)
    epochs = 12 if given.quick else arms.EPOCHS
    found = tables(given.seeds or (1 if given.quick else 3), epochs, given.processes, given.table)
    add_compute(rows, found)
    add_overhead(rows, taken(1 if given.quick else 3, TRIALS), TRIALS)
    rows.close(given.json)


def curve(weight: float, activation: str, seed: int, epochs: int) -> Curve:
    """One training, as ``recipe=digits_gradnorm`` with this weight and activation."""
    arm = arms.Arm(BLOCKS, activation, EPS, arms.gradnorm(EPS, weight=weight))
    images = arms.data(seed)
    model = arms.network(arm, seed, images)
    factory = partial(torch.optim.AdamW, lr=arms.LR, betas=(0.9, 0.999), eps=1e-8)
    state = State.create(model, optimizers.build(model, factory, arms.WEIGHT_DECAY))
    found = []
    for report in fit(state, arm.objective, images, arms.settings(seed, epochs)):
        if report.kind == "epoch":
            ((_, clean),) = CleanAccuracy()(model, images.held_out("validation"))
            ((_, robust),) = RobustAccuracy(JUDGE)(model, images.held_out("validation"))
            found.append((clean, robust))
    return found


def tables(seeds: int, epochs: int, processes: int, path: Path | None) -> list[Table]:
    """The full grid with each seed; what ``path`` holds is not trained again."""
    kept = json.loads(path.read_text()) if path and path.exists() else []
    found = {(w, a, seed): points for w, a, seed, points in kept if len(points) == epochs}
    wanted = [(w, a, seed) for seed in range(seeds) for w in WEIGHTS for a in ACTIVATIONS]
    left, began = [key for key in wanted if key not in found], time.perf_counter()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = {pool.submit(curve, *key, epochs): key for key in left}
        for done in as_completed(jobs):
            (w, a, seed), found[jobs[done]] = jobs[done], done.result()
            if path:
                path.write_text(json.dumps([[*key, points] for key, points in found.items()]))
            (clean, robust), minutes = found[w, a, seed][-1], (time.perf_counter() - began) / 60
            print(f"{minutes:4.1f} min: seed {seed}  {w:4g} {a:8}  clean {clean:.3f}  robust {robust:.3f}", flush=True)
    return [{(w, a): found[w, a, seed] for w in WEIGHTS for a in ACTIVATIONS} for seed in range(seeds)]


@dataclass(frozen=True)
class Ended:
    """A trial that has ended.  ``robust``: its last report.  ``spent``: epochs of all trials by then."""

    point: Point
    epochs: int
    robust: float
    spent: int


def tuned(table: Table, search: Mapping[str, Any], most: float = math.inf) -> Iterator[Ended]:
    """The trials of ``search`` over the table's points as they end: ``most``, whatever it says itself."""
    from ray.tune.schedulers import FIFOScheduler

    from pipelines.search import tuner
    from pipelines.search.space import Axis

    made = tuner.config(search, _epochs(table), AT_ONCE)
    values = zip(*table, strict=True)
    space = {key: Axis(key, "choice", tuple(dict.fromkeys(v))).domain() for key, v in zip(KEYS, values, strict=True)}
    made.search_alg.set_search_properties(made.metric, made.mode, space)
    scheduler = made.scheduler or FIFOScheduler()
    scheduler.set_search_properties(made.metric, made.mode)
    return replay(table, made.search_alg, scheduler, search["weights"], most)


def drawn(table: Table, seed: int) -> Iterator[Ended]:
    """Uniform draws, each trained in full."""
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search import Searcher

    class Draws(Searcher):
        draw = random.Random(seed)

        def suggest(self, trial_id: str) -> dict[str, Any]:
            return dict(zip(KEYS, self.draw.choice(list(table)), strict=True))

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """Learns nothing."""

    return replay(table, Draws(), FIFOScheduler(), {})


def replay(
    table: Table, searcher: Any, scheduler: Any, weights: Mapping[str, float], most: float = math.inf
) -> Iterator[Ended]:
    """In Ray Tune's order: the scheduler hears of a report first, the searcher only if the trial goes on."""
    from pipelines.search.trial import Setting

    told = Setting((), None, "", "", "", "", weights, 1.0).told
    running, begun = list[SimpleNamespace](), 0
    for spent in itertools.count(1):
        while len(running) < AT_ONCE and begun < most:
            trial, begun = SimpleNamespace(trial_id=str(begun), epoch=0), begun + 1
            sample = searcher.suggest(trial.trial_id)
            trial.point = tuple(sample[key] for key in KEYS)
            scheduler.on_trial_add(None, trial)
            running.append(trial)
        if not running:
            return
        trial = running.pop(0)
        clean, robust = table[trial.point][trial.epoch]
        trial.epoch += 1
        report = {**told(clean, robust, trial.epoch, ""), "training_iteration": trial.epoch}
        goes_on = scheduler.on_trial_result(None, trial, report) != scheduler.STOP
        if goes_on:
            searcher.on_trial_result(trial.trial_id, report)
        if goes_on and trial.epoch < _epochs(table):
            running.append(trial)
        else:
            scheduler.on_trial_complete(None, trial, report)
            searcher.on_trial_complete(trial.trial_id, report)
            yield Ended(trial.point, trial.epoch, robust, spent)


@dataclass(frozen=True)
class Cost:
    """``share`` of the full grid's epochs, after ``trials``; 1 for a search that was given up, and has not reached."""

    share: float
    trials: int
    reached: bool


def cost(trials: Iterator[Ended], target: float, table: Table) -> Cost:
    """Of the first trial that ended with ``target``."""
    for n, ended in enumerate(trials, 1):
        if ended.robust >= target and ended.spent <= grid(table):
            return Cost(ended.spent / grid(table), n, True)
        if ended.spent >= grid(table):
            break
    return Cost(1.0, n, False)


def grid(table: Table) -> int:
    """Epochs of the full grid."""
    return _epochs(table) * len(table)


def best(table: Table) -> float:
    """The best robust accuracy at full epochs."""
    return max(points[-1][1] for points in table.values())


def near(table: Table) -> float:
    """One standard error on the validation images less."""
    return best(table) - math.sqrt(best(table) * (1 - best(table)) / arms.VALIDATION)


def add_compute(rows: Rows, found: Sequence[Table], searches: int = SEARCHES) -> None:
    shipped = _shipped()
    most = shipped["trials"]

    def compute(what: str, search: Search, target: Callable[[Table], float], goal: str | None = None) -> None:
        costs = [[cost(search(table, seed), target(table), table) for seed in range(searches)] for table in found]
        given_up = sum(not one.reached for each in costs for one in each)
        note = f"to {', '.join(f'{target(table):.3f}' for table in found)}; {given_up} given up"
        _add(rows, what, [[one.share for one in each] for each in costs], goal, note)

    def search(table: Table, seed: int, most: float = math.inf) -> Iterator[Ended]:
        return tuned(table, {**shipped, "seed": seed}, most)

    compute("compute_over_full_grid", search, near, "<= 0.33")
    compute("compute_over_full_grid_exact", search, best)
    compute("random_compute_over_full_grid", drawn, near)
    compute("random_compute_over_full_grid_exact", drawn, best)
    whole = [[list(search(table, seed, most)) for seed in range(searches)] for table in found]
    for suffix, target in (("", near), ("_exact", best)):
        goals = [target(table) for table in found for _ in range(searches)]
        trials = [each for of_table in whole for each in of_table]
        reached = [any(trial.robust >= goal for trial in each) for goal, each in zip(goals, trials, strict=True)]
        rows.add(f"reached_in_{most}_trials{suffix}", value=statistics.mean(reached), n=len(reached))
    spent = [[trials[-1].spent / grid(table) for trials in each] for table, each in zip(found, whole, strict=True)]
    _add(rows, f"spent_in_{most}_trials", spent)


def _add(rows: Rows, what: str, values: Sequence[Sequence[float]], goal: str | None = None, note: str = "") -> None:
    """``values``: of each training seed, one a search."""
    means, flat = [statistics.mean(each) for each in values], [one for each in values for one in each]
    rows.add(what, flat, statistics.mean(means), None, deviation(flat), t_interval(means), goal, note)


def _epochs(table: Table) -> int:
    return len(next(iter(table.values())))


def _shipped() -> dict[str, Any]:
    from pipelines import compose

    return compose.compose("tune", ["search=digits_gradnorm"])["search"]


def taken(repeats: int, trials: int) -> list[dict[str, float]]:
    """Seconds of each of ``ARMS`` for so many trainings; they take turns in being first."""
    from pipelines import cluster
    from pipelines.search.trial import Setting
    from pipelines.tracking import runs

    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        runs.check(uri)
        cluster.connect(dashboard=True)

        def seconds(arm: str, name: str, many: int) -> float:
            parent = runs.open_run(uri, "holdfast", key=name, name=name, params={})
            lines = (*TINY, f"tracking.uri={uri}")
            setting = Setting(lines, None, f"{folder}/{name}", name, parent, name, {"robust_accuracy": 1.0}, 1.0)
            began = time.perf_counter()
            ARMS[arm](setting, [0.1 * (k + 1) for k in range(many)])
            return time.perf_counter() - began

        seconds("trainings", "first", 1)  # its processes read from disk what all others find in memory
        found = []
        for i in range(repeats):
            order = [*ARMS][i % len(ARMS) :] + [*ARMS][: i % len(ARMS)]
            found.append({arm: seconds(arm, f"{arm}-{i}", trials) for arm in order})
            print(f"{trials} of each: {', '.join(f'{arm} {t:.1f} s' for arm, t in found[-1].items())}", flush=True)
    return found


def add_overhead(rows: Rows, found: Sequence[Mapping[str, float]], trials: int) -> None:
    def added(arm: str) -> list[float]:
        return [(each[arm] - each["trainings"]) / trials for each in found]

    note = f"{trials} trials, one at a time"
    rows.add("trial_overhead_seconds", added("halved"), goal="<= 8", note=f"{note}, a process each, as under halving")
    rows.add("trial_overhead_seconds_no_halving", added("plain"), note=f"{note}, in the same process")
    alone = [each["trainings"] / trials for each in found]
    rows.add("training_seconds", alone, note="the same trainings, alone")


def _search(halving: bool, setting: Any, weights: Sequence[float]) -> None:
    from pipelines.search import tuner
    from pipelines.search.space import Axis

    shipped = _shipped()
    search = {**shipped, "algorithm": "grid", "trials": None, "halving": {**shipped["halving"], "use": halving}}
    results = tuner.fit(search, [Axis(KEYS[0], "grid", tuple(weights))], setting, epochs=1, concurrent=1, failures=0)
    if results.errors or len(results) < len(weights):
        raise RuntimeError(f"{len(results)} trials of {len(weights)}: {results.errors}")


def _trainings(setting: Any, weights: Sequence[float]) -> None:
    from rich.console import Console

    from pipelines.train import train

    for i, weight in enumerate(weights):
        config = setting.config(f"training-{i}", {KEYS[0]: weight})
        train(config, Console(file=io.StringIO()), within=setting.within(model=False))


ARMS = {"halved": partial(_search, True), "plain": partial(_search, False), "trainings": _trainings}

if __name__ == "__main__":
    main()

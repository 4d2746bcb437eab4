"""What the three papers ask that a laptop can answer, over seeds, on digits and on images that are made.

    python benchmarks/papers.py [--quick] [--json FILE] [--seeds N] [--processes N] [--only WORD]

Networks, mixing and schedule are those of the ``digits_*`` recipes (see benchmarks/arms.py); arms of one seed start
from the same weights and see the same images in the same order.

edges, low bounds (2409.20139, 2005.01499): 3 blocks, GELU, 25 epochs: standard training, EdgeReg as in
``recipe=digits_edges``, and PGD-3 at 0.25 to 8 /255.  Alignment is the correlation of the input gradient with the
image's edges.
surrogate (2006.14536): 7 blocks of ReLU, PGD-1 training at eps 0.15; its backward pass is Parametric Softplus's in the
attack (inner), in the parameters' gradient (outer), in both, in neither.  All are judged through ReLU's own gradient.
zero-shot: a backbone trained on 48 of the attribute world's 64 classes, ESZSL on its features, among the 16 unseen.
localisation: digits pasted on a canvas of 24 pixels; boxes from the input gradient of the true class, IoU of 0.5, the
threshold chosen on validation images; PGD-3 at 4/255 against standard training.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import arms
from benchmarks.arms import Arm, data, descend, network, pgd3, settings
from benchmarks.report import Rows, parser
from benchmarks.science import add
from trainers import optimizers
from trainers.activations.surrogate import SurrogateReLU
from trainers.attacks.pgd import PGD
from trainers.data.attribute_world import AttributeWorld
from trainers.data.held_out import HeldOut
from trainers.data.pasted_digits import PastedDigits
from trainers.data.resident import Resident
from trainers.evaluation.accuracy import CleanAccuracy, RobustAccuracy
from trainers.evaluation.alignment import EdgeCorrelation
from trainers.evaluation.localisation import GradientMap, Localisation, swept
from trainers.evaluation.zero_shot import ZeroShot
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.edge_regularized import EdgeRegularized
from trainers.objectives.standard import Standard
from trainers.ramp import Ramp
from trainers.state import State
from trainers.step import Step
from trainers.threat import Linf
from trainers.types import Objective

Found = dict[tuple[str, int], dict[str, float]]
"""By job and seed: what was measured."""
BOUNDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""In 255ths of the pixels' range."""
EDGES = EdgeRegularized(ramp=Ramp(1.0, 0.72, 19.0))
SURROGATES = {"neither": (False, False), "inner": (True, False), "outer": (False, True), "both": (True, True)}
EPS = 0.15
READING = """How to read it
value: mean over n seeds; spread: standard deviation over seeds; interval: 95%, Student's t over seeds.  A gain, drop or
ratio is taken seed by seed.  The interval tells how another training run would come out on the same test images."""


def aligned(objective: Objective, seed: int) -> dict[str, float]:
    images = data(seed)
    model = network(Arm(3, "gelu", 0.1, objective), seed, images)
    descend(model, objective, images, settings(seed))
    found: dict[str, float] = {}
    for probe in (CleanAccuracy(), RobustAccuracy(arms.judge(0.1)), EdgeCorrelation()):
        found |= probe(model, images.held_out("test"))
    return found


def surrogate(inner: bool, outer: bool, seed: int) -> dict[str, float]:
    images = data(seed)
    attack = PGD(Linf(EPS), steps=1, step_size=EPS, keep="last")
    objective = AdversarialTraining(attack)
    model = network(Arm(7, "surrogate_relu", EPS, objective), seed, images)
    for site in (module for module in model.modules() if isinstance(module, SurrogateReLU)):
        site.inner, site.outer = inner, outer
    descend(model, objective, images, settings(seed))
    for site in (module for module in model.modules() if isinstance(module, SurrogateReLU)):
        site.inner = False  # judged as the ReLU network it is
    found: dict[str, float] = {}
    for probe in (CleanAccuracy(), RobustAccuracy(PGD(Linf(EPS), steps=200, step_size=EPS / 20))):
        found |= probe(model, images.held_out("test"))
    return found


def zero_shot(trained: bool, seed: int) -> dict[str, float]:
    world = AttributeWorld(train=20, seed=seed)
    images = Resident(world, arms.BATCH, seed=seed)
    model = network(Arm(3, "gelu", 0.1, Standard()), seed, images)
    if trained:
        descend(model, Standard(), images, settings(seed, 8))
    beyond = HeldOut(world.beyond)
    judged = [*images.held_out("test"), beyond.batch(torch.arange(len(beyond)))]
    probe = ZeroShot(list(images.held_out("train")), world.attributes, world.all_classes, seed=seed)
    return dict(probe(model, judged))


def localised(objective: Objective, seed: int) -> dict[str, float]:
    source = PastedDigits(canvas=24, seed=seed)
    images = Resident(source, arms.BATCH, seed=seed, validation=200)
    model = network(Arm(3, "gelu", 0.1, objective), seed, images)
    descend(model, objective, images, settings(seed, 12))
    boxes = {**source.split("train").boxes, **source.split("test").boxes}
    probe = Localisation(GradientMap(sigma=1.0), boxes)
    chosen = swept(probe.overlaps(model, images.held_out("validation"), "validation"))
    return dict(replace(probe, threshold=chosen)(model, images.held_out("test")))


JOBS: dict[str, Callable[[int], dict[str, float]]] = {
    "standard": partial(aligned, Standard()),
    "edges": partial(aligned, EDGES),
    **{f"bound_{bound:g}": partial(aligned, pgd3(bound / 255)) for bound in BOUNDS},
    **{f"surrogate_{name}": partial(surrogate, *switches) for name, switches in SURROGATES.items()},
    "zero_shot": partial(zero_shot, True),
    "zero_shot_untrained": partial(zero_shot, False),
    "localised_standard": partial(localised, Standard()),
    "localised_low_bound": partial(localised, pgd3(4 / 255)),
}


def run(name: str, seed: int) -> tuple[str, int, dict[str, float], float]:
    began = time.perf_counter()
    return name, seed, JOBS[name](seed), time.perf_counter() - began


def outcomes(names: Sequence[str], seeds: int, processes: int) -> Iterator[tuple[str, int, dict[str, float], float]]:
    """As they finish; one thread a process."""
    jobs = [(name, seed) for seed in range(seeds) for name in names]
    if processes == 1:
        yield from (run(*job) for job in jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for finished in as_completed([pool.submit(run, *job) for job in jobs]):
            yield finished.result()


def column(found: Found, job: str, what: str) -> list[float]:
    """One value a seed, in the seeds' order."""
    return [found[key][what] for key in sorted(found) if key[0] == job]


def gain(found: Found, first: str, second: str, what: str) -> list[float]:
    """``first - second``, seed by seed."""
    return [a - b for a, b in zip(column(found, first, what), column(found, second, what), strict=True)]


def add_claims(rows: Rows, found: Found) -> None:
    jobs = {name for name, _ in found}
    if {"edges", "standard"} <= jobs:
        add(rows, "edge_correlation_gain", gain(found, "edges", "standard", "edge_correlation"), ">= 0.1", "EdgeReg")
    for bound in BOUNDS if {"standard", "bound_0.25"} <= jobs else ():
        lowest, name, what = bound == BOUNDS[0], f"bound_{bound:g}", f"PGD-3 at {bound:g}/255"
        suffix = "lowest_bound" if lowest else name
        drop = gain(found, "standard", name, "clean_accuracy")
        add(rows, f"clean_drop_{suffix}", drop, "<= 0.01" if lowest else None, what)
        more = gain(found, name, "standard", "edge_correlation")
        add(rows, f"alignment_gain_{suffix}", more, "> 0" if lowest else None, what)
    for name in ("outer", "inner", "both") if "surrogate_neither" in jobs else ():
        gained = gain(found, f"surrogate_{name}", "surrogate_neither", "robust_accuracy")
        add(rows, f"surrogate_{name}_gain", gained, note="robust accuracy, eps 0.15, PGD-200")
    for job, goal in (("zero_shot", ">= 3"), ("zero_shot_untrained", None)):
        if job in jobs:
            t1, chance = (column(found, job, f"zero_shot_{what}") for what in ("t1", "chance"))
            note = "untrained network" if goal is None else "16 unseen classes, chance 1/16"
            add(rows, f"{job}_unseen_over_chance", [a / b for a, b in zip(t1, chance, strict=True)], goal, note)
    if "localised_standard" in jobs:
        for what in ("gt_known_localisation", "top1_localisation", "top1_accuracy"):
            gained = gain(found, "localised_low_bound", "localised_standard", what)
            name = "localisation_gain_low_bound" if what.startswith("gt") else f"{what}_gain_low_bound"
            add(rows, name, gained, note=f"PGD-3 at 4/255, {what}")


def add_step(rows: Rows, rounds: int) -> None:
    """Whole training steps, taking turns."""
    images, ratios = data(0), []
    batch = next(images.train(0))
    steps = [_step(objective, images) for objective in (EDGES, Standard())]
    for i in range(rounds + 1):
        taken = []
        for step in steps:
            began = time.perf_counter()
            for _ in range(5):
                step(batch, 3.0, lr=0.0)
            taken.append(time.perf_counter() - began)
        if i:  # the first finds no memory yet
            ratios.append(taken[0] / taken[1])
    rows.add("edgereg_over_standard_step", ratios, goal="<= 3.0", note="median and quartiles of time ratios, 3 blocks")


def _step(objective: Objective, images: Resident) -> Step:
    model = network(Arm(3, "gelu", 0.1, objective), 0, images)
    factory = partial(torch.optim.AdamW, lr=0.0)
    return Step(State.create(model, optimizers.build(model, factory, 0.0)), objective)


MEASURES: Mapping[str, tuple[str, ...]] = {
    "surrogate": ("clean_accuracy", "robust_accuracy"),
    "zero_shot": ("zero_shot_t1", "zero_shot_unseen", "zero_shot_seen", "zero_shot_harmonic"),
    "localised": ("gt_known_localisation", "top1_localisation", "top1_accuracy"),
    "": ("clean_accuracy", "robust_accuracy", "edge_correlation"),
}
"""By how the name of a job begins."""


def add_measures(rows: Rows, found: Found) -> None:
    for job in [name for name in JOBS if any(name == done for done, _ in found)]:
        begins = next(each for each in MEASURES if job.startswith(each))
        for what in MEASURES[begins]:
            add(rows, what if job == "zero_shot" else f"{what}_{job}", column(found, job, what))


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__, quick="3 seeds: under 20 minutes on 2 cores")
    options.add_argument("--seeds", type=int, help="default 5, with --quick 3")
    options.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    options.add_argument("--only", default="", help="jobs whose name holds this word")
    given: Any = options.parse_args(arguments)

    torch.set_num_threads(1)
    names = [name for name in JOBS if given.only in name]
    if not names:
        options.error(f"--only={given.only}: no job's name holds it; there are {', '.join(JOBS)}")
    seeds = given.seeds or (3 if given.quick else 5)
    title = (
        "Threat: Linf (pixels in [0, 1]); robust accuracy at eps 0.10 by PGD-50, of the surrogate at 0.15 by PGD-200"
    )
    rows, found, began = Rows(title, reading=READING), Found(), time.perf_counter()
    for name, seed, measured, seconds in outcomes(names, seeds, given.processes):
        found[name, seed] = measured
        print(
            f"{len(found):3}/{seeds * len(names)} after {(time.perf_counter() - began) / 60:4.1f} min: "
            f"{name:22} seed {seed}  {seconds:.0f} s",
            flush=True,
        )
    add_claims(rows, found)
    if not given.only:
        add_step(rows, 10)
    add_measures(rows, found)
    rows.close(given.json)


if __name__ == "__main__":
    main()

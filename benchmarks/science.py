"""What the gradient penalty, adversarial training and the activation do for robustness, on scikit-learn's digits.

    python benchmarks/science.py [--quick] [--json FILE] [--seeds N] [--processes N] [--device cpu|cuda]

Every arm has the settings of the ``digits_*`` recipes: from scratch, 25 epochs of 1,129 images, batch 64, AdamW 2e-3
with weight decay 0.05, clip 1, 3 epochs of warm-up, cosine, mixup 0.8, label smoothing 0.1, BatchNorm in train mode,
the weights of the last step.  The activation is judged at eps 0.15 on 7 blocks, where GradNorm has weights 0.5 and 2
(2409.20139's effect needs depth and a strong penalty; on 3 blocks there is hardly any), GradNorm against adversarial
training on the recipes' own 3 blocks at eps 0.10.  The rows with goals are of this setting.

Beside it stands ``*_frozen_bn``, the same but for its start: 8 natural epochs, then the 25 with BatchNorm frozen, as
2409.20139 publishes both methods (from a natural checkpoint, in eval mode).
"""

import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from operator import sub
from pathlib import Path

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.arms import ARMS, Budget, Outcome, data, network, train
from benchmarks.report import Rows, parser
from trainers.evaluation.cost import standard_steps

Found = dict[tuple[str, int], Outcome]
"""By arm and seed."""

PEER_PGD3 = (3 * (1 + 2) + 1 + 3) / 3
"""Standard steps of a PGD-3 loop that calls ``.backward()`` in its attack, so that each of 3 attack steps pays for the
gradients of the weights too, and then scores what it found: 13 forwards' worth, of 3 a standard step."""

READING = """How to read it
value: mean over n seeds; spread: standard deviation over seeds; interval: 95%, Student's t over seeds.  A difference or
ratio is taken seed by seed.  The interval tells how another training run would come out on these 540 test images; it
does not hold the uncertainty of the images themselves, which is 1.5 points of a robust accuracy of 0.85 (one standard
error), less of a difference between two networks judged on the same images.
clean_, robust_: accuracy on all 540 test images, as they are and under the attack; arm, activation, blocks.
*_minus_*: in accuracy, 0.02 is 2 points.  *_cost: standard training steps for one of GradNorm's, over those for one of
the other's, by floating-point operations."""


def outcomes(seeds: int, processes: int, budget: Budget) -> Iterator[Outcome]:
    """Every arm with every seed, as they finish; one thread a process."""
    jobs = [(name, seed, budget) for seed in range(seeds) for name in ARMS]
    if processes == 1:
        yield from (train(*job) for job in jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for finished in as_completed([pool.submit(train, *job) for job in jobs]):
            yield finished.result()


def announced(runs: Iterator[Outcome], total: int) -> Found:
    found: Found = {}
    began = time.perf_counter()
    for run in runs:
        found[run.arm, run.seed] = run
        print(
            f"{len(found):3}/{total} after {(time.perf_counter() - began) / 60:4.1f} min: {run.arm:26} "
            f"seed {run.seed}  clean {run.clean:.3f}  robust {run.robust:.3f}  {run.seconds:.0f} s",
            flush=True,
        )
    return found


def robust(found: Found, arm: str) -> list[float]:
    """One value a seed, in the seeds' order."""
    return [found[key].robust for key in sorted(found) if key[0] == arm]


def over(a: float, b: float) -> float:
    """``a / b``; not a number where a network that lost everything is divided by, so that the other rows are kept."""
    return a / b if b else math.nan


def paired(found: Found, first: str, combine: Callable[[float, float], float], second: str) -> list[float]:
    """Robust accuracies of two arms, combined seed by seed."""
    return [combine(a, b) for a, b in zip(robust(found, first), robust(found, second), strict=True)]


def deviation(values: Sequence[float]) -> float:
    """The sample's standard deviation."""
    return float(np.std(values, ddof=1))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval for the mean of ``values``; none for a single one."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), deviation(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return mean - half, mean + half


def add(rows: Rows, what: str, values: Sequence[float], goal: str | None = None, note: str = "") -> None:
    spread = deviation(values) if len(values) > 1 else None
    rows.add(what, values, float(np.mean(values)), spread=spread, interval=t_interval(values), goal=goal, note=note)


def add_claims(rows: Rows, found: Found) -> None:
    def gap(method: str, setting: str = "") -> list[float]:
        return paired(found, f"{method}_gelu_7{setting}", sub, f"{method}_relu_7{setting}")

    add(rows, "gelu_minus_relu_robust", gap("gradnorm"), ">= 0.20", "GradNorm, 7 blocks, eps 0.15")
    add(rows, "smooth_minus_relu_robust", gap("at"), ">= 0.02", "PGD-3 training, 7 blocks, eps 0.15, GELU")
    over_at = paired(found, "gradnorm_gelu_3", over, "at_gelu_3")
    add(rows, "gradnorm_over_at_robust", over_at, ">= 0.90", "3 blocks, eps 0.10")
    over_at = paired(found, "gradnorm_gelu_7", over, "at_gelu_7")
    add(rows, "gradnorm_over_at_robust_7_blocks", over_at, note="GELU, eps 0.15")
    for name, method in (("gelu_minus_relu", "gradnorm"), ("smooth_minus_relu", "at")):
        note = "8 natural epochs, then BatchNorm frozen"
        add(rows, f"{name}_robust_frozen_bn", gap(method, "_frozen_bn"), note=note)
    over_at = paired(found, "gradnorm_gelu_7_frozen_bn", over, "at_gelu_7_frozen_bn")
    add(rows, "gradnorm_over_at_robust_7_blocks_frozen_bn", over_at, note="GELU, eps 0.15")


def add_costs(rows: Rows) -> None:
    costs = {}
    for name in ("gradnorm_gelu_3", "at_gelu_3"):
        images = data(seed=0)
        batch = next(images.held_out("test", limit=2))
        costs[name] = standard_steps(ARMS[name].objective, network(ARMS[name], 0, images), batch.x, batch.y)
    ours, theirs = costs.values()
    rows.add("gradnorm_over_at_cost", value=ours / theirs, note=f"{ours:.2f} of {theirs:.2f} standard steps")
    note = f"{ours:.2f} of {PEER_PGD3:.2f}: PGD-3 by .backward(), and a forward to score it"
    rows.add("gradnorm_over_peer_cost", value=ours / PEER_PGD3, note=note)


def add_accuracies(rows: Rows, found: Found) -> None:
    for name, arm in ARMS.items():
        runs = [found[key] for key in sorted(found) if key[0] == name]
        add(rows, f"clean_{name}", [run.clean for run in runs])
        add(rows, f"robust_{name}", [run.robust for run in runs], note=f"eps {arm.eps:.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__, quick="3 seeds: under 20 minutes on 2 cores")
    options.add_argument("--seeds", type=int, help="default 5, with --quick 3")
    options.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--epochs", type=int, default=Budget.epochs, help="fewer only to try the script")
    options.add_argument("--examples", type=int, help="fewer only to try the script")
    given = options.parse_args(arguments)

    torch.set_num_threads(1)
    seeds = given.seeds or (3 if given.quick else 5)
    rows = Rows(
        "Threat: Linf, eps 0.15 for 7 blocks and 0.10 for 3 (pixels in [0, 1]).  "
        "Attack: PGD-50, steps of eps/20, random start, best iterate.",
        reading=READING,
    )
    budget = Budget(given.epochs, given.examples, given.device)
    found = announced(outcomes(seeds, given.processes, budget), seeds * len(ARMS))
    add_claims(rows, found)
    add_costs(rows)
    add_accuracies(rows, found)
    rows.close(given.json)


if __name__ == "__main__":
    main()

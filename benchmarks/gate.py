"""How often the gate is wrong about two models: promotes what is no better, and refuses what is.

    python benchmarks/gate.py [--quick] [--json FILE] [--pairs N]

Each pair of models is drawn anew: of n images 20 % are right in one of the two only, and how these fall to one and the
other is multinomial with the true difference.  Every pair goes whole through ``pipelines.promotion.gate.decide``, by a
policy that asks for nothing but a robust accuracy that compares, at the 5 % level.

``wrong_promotions``: the worst of the rows below it, which are of true differences at the edge, where the test errs
most: equal models under the rule ``better``, and a true loss of the whole margin, 2 points, under ``not_worse``.
``missed_better``: refusals of a model that is truly 3 points better, under ``better``.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser
from pipelines.promotion.artefact import Artefact
from pipelines.promotion.evidence import Evidence
from pipelines.promotion.gate import decide
from pipelines.promotion.policy import ANY, BETTER, NOT_WORSE, Bar, Policy
from trainers.evaluation.intervals import wilson

PAIRS, QUICK = 20_000, 2_000
LEVEL, MARGIN, DISCORDANCE = 0.05, 0.02, 0.2
THREAT = "Linf 8/255"
CLAUSE = f"robust accuracy, {THREAT}, against the champion"

READING = """How to read it
value: the share of n pairs of models; interval: Wilson's, 95 %; that of wrong_promotions is its worst row's.
Drawn is which images each model has right, and the rates are of that luck alone: they say nothing of another training
run, nor of an attack that finds too little."""


@dataclass(frozen=True)
class Case:
    """``gain``: the true difference, candidate less champion; ``n``: the images that decide."""

    rule: str
    gain: float
    n: int


EDGE = [Case(rule, gain, n) for rule, gain in ((BETTER, 0.0), (NOT_WORSE, -MARGIN)) for n in (540, 2_000, 10_000)]
GAIN = Case(BETTER, 0.03, 2_000)


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__.splitlines()[0], quick=f"{QUICK:,} pairs of models a row: seconds")
    options.add_argument("--pairs", type=int, metavar="N", help=f"pairs of models a row; {PAIRS:,}")
    args = options.parse_args(argv)
    pairs = args.pairs or (QUICK if args.quick else PAIRS)
    rows = Rows("The gate's errors over pairs of models", READING)
    add_wrong(rows, {case: promoted(case, pairs, seed) for seed, case in enumerate(EDGE)}, pairs)
    missed = pairs - promoted(GAIN, pairs, len(EDGE))
    add_rate(rows, "missed_better", missed, pairs, "<= 0.2", said(GAIN))
    rows.close(args.json)


def add_wrong(rows: Rows, promotions: dict[Case, int], pairs: int) -> None:
    """``promotions``: how many of the ``pairs`` of each case."""
    worst = max(promotions, key=lambda case: promotions[case])
    add_rate(rows, "wrong_promotions", promotions[worst], pairs, "<= 0.055", f"the worst of {len(promotions)} rows")
    for case, count in promotions.items():
        add_rate(rows, f"wrong_promotions_{case.rule}_{case.n}", count, pairs, None, said(case))


def add_rate(rows: Rows, what: str, count: int, pairs: int, goal: str | None, note: str) -> None:
    rows.add(what, value=count / pairs, n=pairs, interval=wilson(count, pairs), goal=goal, note=note)


def said(case: Case) -> str:
    margin = f" by {100 * MARGIN:g} points" if case.rule == NOT_WORSE else ""
    truth = f"truly {100 * case.gain:+g} points" if case.gain else "truly equal"
    return f"{case.rule}{margin}, {truth}, {case.n:,} images, {100 * DISCORDANCE:g} % right in one only"


def promoted(case: Case, pairs: int, seed: int) -> int:
    """How many of so many candidates the gate lets through."""
    random = np.random.default_rng(seed)
    gained, lost = (DISCORDANCE + case.gain) / 2, (DISCORDANCE - case.gain) / 2
    counts = random.multinomial(case.n, (gained, lost, 1 - DISCORDANCE), size=pairs)
    candidate, champion = evidence("candidate/1", case.n), evidence("champion/1", case.n)
    return sum(passes(candidate, champion, case.rule, int(g), int(h)) for g, h, _ in counts)


def passes(candidate: Evidence, champion: Evidence, rule: str, gained: int, lost: int) -> bool:
    """What ``decide`` says of a candidate that gained and lost so many images."""
    ours, theirs = candidate.robust[THREAT].copy(), champion.robust[THREAT].copy()
    ours[:gained], theirs[:gained] = True, False
    ours[gained : gained + lost], theirs[gained : gained + lost] = False, True
    decision = decide(replace(candidate, robust={THREAT: ours}), replace(champion, robust={THREAT: theirs}), asks(rule))
    if decision.failed not in ((), (CLAUSE,)):
        raise RuntimeError(f"the gate failed on {', '.join(decision.failed)}, which no pair here should fail")
    return decision.passed


def asks(rule: str) -> Policy:
    clean, robust = Bar(0.0, 0.0, ANY, MARGIN), Bar(0.0, 0.0, rule, MARGIN)
    return Policy(clean, robust, LEVEL, doubts=(), data=None)


def evidence(version: str, n: int) -> Evidence:
    """Of a model with nothing against it."""
    digest, network = "a" * 64, "b" * 64
    shape = (3, 32, 32)
    return Evidence(
        version=version,
        artefact=Artefact(digest, digest, network, f"float32 pixels {shape} in [0, 1]", shape, difference=0.0),
        network=network,
        attack={"name": "AutoAttack standard", "version": "standard", "mode": "fast", "seed": 0},
        beyond=("malt",),
        data="c" * 64,
        classes=("one", "other"),
        ids=np.arange(n),
        labels=np.arange(n) % 2,
        clean=np.ones(n, bool),
        autoattack={THREAT: np.arange(n) % 2 == 0},
        robust={THREAT: np.arange(n) % 2 == 0},
        doubts=(),
        digest="d" * 64,
    )


if __name__ == "__main__":
    main()

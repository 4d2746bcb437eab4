"""The best of a search, trained again at full budget over seeds and attacked by AutoAttack; the winner, registered."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from pipelines import compose
from pipelines.evaluate import evaluate
from pipelines.search import front
from pipelines.search.front import Trial
from pipelines.search.trial import ROBUST, Setting
from pipelines.tracking import versions
from pipelines.tracking.versions import CHALLENGER, ROLLED_BACK, Version
from pipelines.train import train

LINEAGE = "search.run_id"
"""The tag of a version that a search registered; the last that it writes."""
T95 = (
    *(12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23),
    *(2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09),
    *(2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04),
)
"""Student's t of 0.975 for 1, 2, ... degrees of freedom; beyond, the last of them, a little wide."""


@dataclass(frozen=True)
class Seed:
    """One training of a finalist: accuracies on test images, ``robust`` of AutoAttack and the attack beyond it, and
    ``validation``, the robust accuracy on validation images.  ``steps``, ``seconds``: what training it cost."""

    seed: int
    run_id: str
    clean: float
    robust: float
    validation: float
    doubts: tuple[str, ...]
    n: int
    steps: float
    seconds: float


@dataclass(frozen=True)
class Finalist:
    trial: Trial
    seeds: tuple[Seed, ...]

    def spread(self, what: str) -> tuple[float, float | None]:
        """``(mean, half width of its 95 % interval over seeds)``, which one seed has none of."""
        values = [getattr(seed, what) for seed in self.seeds]
        if len(values) < 2:
            return values[0], None
        t = T95[min(len(values) - 1, len(T95)) - 1]
        return statistics.mean(values), t * statistics.stdev(values) / math.sqrt(len(values))

    @property
    def best(self) -> Seed:
        """By validation images: picked by the test images, its numbers on them would flatter it."""
        return max(self.seeds, key=lambda seed: (seed.validation, -seed.seed))

    def plain(self) -> dict[str, Any]:
        return {
            "name": self.trial.name,
            "sample": self.trial.said,
            "clean": self.spread("clean"),
            "robust": self.spread("robust"),
            "seeds": [vars(seed) for seed in self.seeds],
        }


def prove(
    trials: Sequence[Trial],
    setting: Setting,
    config: Mapping[str, Any],
    console: Console,
    debug: bool,
) -> list[Finalist]:
    """Each over seeds that the search has not seen.  What is trained or attacked already is not again."""
    found = []
    for trial in trials:
        seeds = []
        first = setting.config(trial.name, trial.sample)["seed"] + 1  # the trial's own was picked for what it found
        for seed in range(first, first + config["seeds"]):
            console.print(f"finalist {trial.said}, seed {seed}", soft_wrap=True, markup=False)
            seeds.append(_one(trial, seed, setting, config["examples"], console, debug))
        found.append(Finalist(trial, tuple(seeds)))
    return found


def _one(trial: Trial, seed: int, setting: Setting, examples: int | None, console: Console, debug: bool) -> Seed:
    training = _training(trial, seed, setting)
    done = train(training, console, debug, within=setting.within())
    threat, uri = training["threat"], training["tracking"]["uri"]
    lines = [
        f"model.source=runs:/{done.run_id}",
        f"threats.{threat['norm']}={threat['eps']!r}",
        f"examples={examples if examples is not None else 'null'}",
        f"storage={setting.folder}/evaluations",
        f"tracking.uri={uri}",
        f"device={training['device']}",
        "report.pictures=0",
    ]
    judged = compose.compose("evaluate", lines)
    found = evaluate({**judged, "data": training["data"], "trust": training["trust"]}, console, debug=debug)
    (at,) = found["threats"]
    return Seed(
        seed=seed,
        run_id=done.run_id,
        clean=found["clean"]["accuracy"],
        robust=at["beyond"]["robust"]["accuracy"],
        validation=done.validation[ROBUST],
        doubts=tuple(doubt["name"] for doubt in found["doubts"]),
        n=found["clean"]["n"],
        steps=done.cost["standard_steps"],
        seconds=done.cost["train_seconds"],
    )


def _training(trial: Trial, seed: int, setting: Setting) -> dict[str, Any]:
    return setting.config(f"{trial.name}-seed{seed}", trial.sample, f"seed={seed}")


def winner(found: Sequence[Finalist], choose: str) -> Finalist:
    """By the same rule as the search, of the means over seeds."""
    means = [replace(f.trial, clean=f.spread("clean")[0], robust=f.spread("robust")[0]) for f in found]
    first = front.ranked(means, choose)[0]
    return next(finalist for finalist in found if finalist.trial.name == first.name)


def register(
    won: Finalist, setting: Setting, name: str | None, choose: str, console: Console, debug: bool
) -> Version | None:
    """The winner's best seed as a version of ``name``, with the search as its lineage, and its challenger.

    Once: what was decided of that version, and of who is challenger, since this search registered it stays.
    """
    if name is None:
        return None
    training = _training(won.trial, won.best.seed, setting)
    training["register_as"] = name
    done = train(training, console, debug, within=setting.within())
    assert done.version is not None
    uri = training["tracking"]["uri"]
    there = versions.find(uri, name, done.version)
    if not there.tags.get(LINEAGE):
        if not there.tags.get(ROLLED_BACK):
            versions.point(uri, name, CHALLENGER, there.number)
        tags = {"search": setting.search, "search.choose": choose, "search.sample": won.trial.said}
        versions.tag(uri, name, there.number, {**tags, LINEAGE: setting.parent})
    return versions.find(uri, name, there.number)

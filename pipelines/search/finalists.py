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
from pipelines.tracking.versions import CHALLENGER
from pipelines.train import train

T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t of 0.975 for 1, 2, ... degrees of freedom; 1.96 beyond."""


@dataclass(frozen=True)
class Seed:
    """One training of a finalist: accuracies on test images, ``robust`` of AutoAttack and the attack beyond it, and
    ``validation``, the robust accuracy on validation images."""

    seed: int
    run_id: str
    clean: float
    robust: float
    validation: float
    doubts: tuple[str, ...]
    n: int


@dataclass(frozen=True)
class Finalist:
    trial: Trial
    seeds: tuple[Seed, ...]

    def spread(self, what: str) -> tuple[float, float]:
        """``(mean, half width of its 95 % interval over seeds)``; not a number for one seed."""
        values = [getattr(seed, what) for seed in self.seeds]
        if len(values) < 2:
            return values[0], math.nan
        t = T95[len(values) - 2] if len(values) - 2 < len(T95) else 1.96
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
    """What is trained or attacked already is not again."""
    found = []
    for trial in trials:
        seeds = []
        first = setting.config(trial.name, trial.sample)["seed"]
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
    found = evaluate({**judged, "data": training["data"]}, console, debug=debug)
    (at,) = found["threats"]
    return Seed(
        seed=seed,
        run_id=done.run_id,
        clean=found["clean"]["accuracy"],
        robust=at["beyond"]["robust"]["accuracy"],
        validation=done.validation[ROBUST],
        doubts=tuple(doubt["name"] for doubt in found["doubts"]),
        n=found["clean"]["n"],
    )


def _training(trial: Trial, seed: int, setting: Setting) -> dict[str, Any]:
    """The trial's own run for its own seed, continued if it was ended early."""
    first = setting.config(trial.name, trial.sample)
    return first if seed == first["seed"] else setting.config(f"{trial.name}-seed{seed}", trial.sample, f"seed={seed}")


def winner(found: Sequence[Finalist], choose: str) -> Finalist:
    """By the same rule as the search, of the means over seeds."""
    means = [replace(f.trial, clean=f.spread("clean")[0], robust=f.spread("robust")[0]) for f in found]
    first = front.ranked(means, choose)[0]
    return next(finalist for finalist in found if finalist.trial.name == first.name)


def register(
    won: Finalist, setting: Setting, name: str | None, choose: str, console: Console, debug: bool
) -> int | None:
    """The winner's best seed as a version of ``name``, with the search as its lineage, and its challenger."""
    if name is None:
        return None
    training = _training(won.trial, won.best.seed, setting)
    training["register_as"] = name
    done = train(training, console, debug, within=setting.within())
    assert done.version is not None
    uri = training["tracking"]["uri"]
    tags = {"search": setting.search, "search.run_id": setting.parent, "search.choose": choose}
    versions.tag(uri, name, done.version, {**tags, "search.sample": won.trial.said})
    versions.point(uri, name, CHALLENGER, done.version)
    return done.version

"""One trial: the same training as ever, inside Ray Tune, judged on validation images after each epoch."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.integration.ray_train import TuneReportCallback

from pipelines.search.space import Axis, overrides, rounded

CLEAN, ROBUST, SCORE = "clean_accuracy", "robust_accuracy", "score"


@dataclass(frozen=True)
class Setting:
    """What all trials of a search share.  ``lines``: the command line of their training.  ``key``: of the search, and
    ``parent``: its MLflow run.  ``weights``: of the score.  ``axes``: what its samples are drawn from."""

    lines: tuple[str, ...]
    recipes: str | None
    folder: str
    key: str
    parent: str
    search: str
    weights: Mapping[str, float]
    cpus: float
    axes: tuple[Axis, ...] = ()

    def config(self, name: str, sample: Mapping[str, Any], *more: str) -> dict[str, Any]:
        """Of the training ``name``: two trials may draw the same sample, and must not share a run."""
        from pipelines.compose import compose

        recipes = Path(self.recipes) if self.recipes else None
        config = compose("train", [*self.lines, *overrides(sample), *more], recipes)
        config["storage"], config["json"], config["name"] = f"{self.folder}/trials", None, name
        config["parallel"]["cpus_per_worker"] = config["parallel"]["cpus_per_worker"] or self.cpus
        return config

    def within(self, callbacks: Callable[[str], list[Any]] = lambda run_id: [], model: bool = True) -> Any:
        """What makes a training part of this search."""
        from pipelines.train import Within

        return Within(self.key, {"mlflow.parentRunId": self.parent, "search": self.search}, callbacks, model)

    def score(self, clean: float, robust: float) -> float:
        return self.weights.get(CLEAN, 0.0) * clean + self.weights.get(ROBUST, 0.0) * robust

    def told(self, clean: float, robust: float, epoch: float, run_id: str) -> dict[str, Any]:
        return {
            CLEAN: clean,
            ROBUST: robust,
            SCORE: self.score(clean, robust),
            "epoch": round(epoch),
            "run_id": run_id,
        }


class Epochs(TuneReportCallback):
    """What Ray Tune is told of a training: its probes, once an epoch."""

    def __init__(self, setting: Setting, run_id: str) -> None:
        super().__init__()
        self._setting, self._run_id, self._epoch = setting, run_id, 0

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        found = metrics[0]
        if "probe_clean_accuracy" in found and int(found["epoch"] + 1e-6) > self._epoch:
            self._epoch = int(found["epoch"] + 1e-6)
            clean, robust = found["probe_clean_accuracy"], found["probe_robust_accuracy"]
            super().after_report(run_context, [self._setting.told(clean, robust, self._epoch, self._run_id)], None)


def trial(sample: dict[str, Any], setting: Setting, environment: Mapping[str, str]) -> None:
    """Ray Tune's trainable.  Begun again, the training goes on from its last checkpoint in the same MLflow run.

    ``environment``: what Ray Train must find in it, which the process of a trial has not from the search's.
    """
    from ray import tune
    from rich.console import Console

    from pipelines import cluster
    from pipelines.train import train

    cluster.quiet(environment)
    name = str(tune.get_context().get_trial_id())
    config = setting.config(name, rounded(sample, setting.axes))
    within = setting.within(lambda run_id: [Epochs(setting, run_id)], model=False)
    done = train(config, Console(file=io.StringIO()), within=within)
    clean, robust = done.validation[CLEAN], done.validation[ROBUST]
    told = setting.told(clean, robust, config["epochs"], done.run_id)
    tune.report({**told, "steps": done.cost["standard_steps"], "seconds": done.cost["train_seconds"]})

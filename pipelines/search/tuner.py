"""Ray Tune, set up for a search, or taken up where a search was left."""

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines import cluster, gauges, storage
from pipelines.errors import Failure, Misuse, first_line
from pipelines.redact import redact_text
from pipelines.search.space import Axis, overrides, rounded, size
from pipelines.search.trial import CLEAN, ROBUST, SCORE, Setting, trial

ALGORITHMS = ("grid", "random", "tpe", "nsga2", "tpe_pareto")
LISTED = ("grid", "random")
"""Those that learn nothing of a trial for the next."""
PARETO = ("nsga2", "tpe_pareto")
"""Those that search the front of both accuracies, and compare no scores."""
STATE = "tune"
"""Ray Tune's own folder in the search's; its state is pickled: nobody else must be able to write there."""
TRIALS, TUNER = "experiment_state-", "tuner.pkl"
PICKLED = ("search_gen_state-", "searcher-state-", "basic-variant-state-", "callback-states-")
"""How the names of Ray Tune's files begin there; the rest is the time, and of each it reads the newest."""


def check(search: Mapping[str, Any], axes: Sequence[Axis]) -> None:
    """Errors: ``Misuse`` for an algorithm, a number or a metric that cannot be."""
    algorithm, trials, halving = search["algorithm"], search["trials"], search["halving"]
    if algorithm not in ALGORITHMS:
        raise Misuse(f"search.algorithm={algorithm} is unknown; choose one of {', '.join(ALGORITHMS)}")
    if algorithm != "grid" and (trials is None or trials < 1):
        raise Misuse(
            f"search.trials={trials} must be at least 1, as search.algorithm={algorithm} has no end of its own"
        )
    if algorithm == "grid" and trials not in (None, size(axes)):
        raise Misuse(
            f"search.trials={trials} does not go with search.algorithm=grid, which tries all {size(axes)}: null"
        )
    if strange := set(search["weights"]) - {CLEAN, ROBUST}:
        raise Misuse(f"search.weights.{min(strange)}: nobody reports that; give {CLEAN} and {ROBUST}")
    if min(search["weights"].values(), default=0) < 0 or not any(search["weights"].values()):
        raise Misuse(f"search.weights={dict(search['weights'])} must not be negative, nor all zero")
    if halving["use"] and algorithm in PARETO:
        raise Misuse(
            f"search.halving.use=true compares one score, and search.algorithm={algorithm} has two; set "
            "search.halving.use=false, or search.algorithm=tpe"
        )
    if halving["first"] < 1 or halving["factor"] <= 1:
        raise Misuse(
            f"search.halving.first={halving['first']}, search.halving.factor={halving['factor']:g}: at least 1 epoch, "
            "and a factor above 1"
        )


def fit(
    search: Mapping[str, Any], axes: Sequence[Axis], setting: Setting, epochs: int, concurrent: int, failures: int
) -> Any:
    """Ray Tune's results.  What was left unfinished in ``setting.folder`` is continued, what was finished stays."""
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", TUNE_DISABLE_SIGINT_HANDLER="1")
    from ray import tune

    filesystem, path = storage.ray_filesystem(setting.folder)
    # A trial only waits for its own workers: it takes none of their processors, but Ray wants to see something.
    started = tune.with_parameters(trial, setting=setting, environment=cluster.local())
    trainable = tune.with_resources(started, {"memory": 1_000_000})
    place = f"{path}/{STATE}"
    try:
        if left(f"{setting.folder}/{STATE}"):
            tuner = tune.Tuner.restore(place, trainable=trainable, restart_errored=True, storage_filesystem=filesystem)
        else:
            tuner = tune.Tuner(
                trainable,
                param_space={axis.key: axis.domain() for axis in axes},
                tune_config=config(search, epochs, concurrent),
                run_config=tune.RunConfig(
                    name=STATE,
                    storage_path=path,
                    storage_filesystem=filesystem,
                    failure_config=tune.FailureConfig(max_failures=failures),
                    verbose=0,
                    callbacks=[progress(axes, setting.search)],
                ),
            )
        return tuner.fit()
    except tune.TuneError as error:
        raise Failure(f"the search failed ({first_line(error)}); the same command goes on with it") from error


def left(place: str) -> bool:
    """Whether trials were left in Ray Tune's folder.

    Errors: ``Failure`` for a state that cannot be read: Ray would log that, and begin the search anew.
    """
    files = storage.files(place)
    newest: dict[str, str] = {}
    for path in files.list(place):  # sorted
        name = path.removeprefix(f"{place}/")
        newest |= {begin: path for begin in (TRIALS, TUNER, *PICKLED) if name.startswith(begin)}
    if TRIALS not in newest:
        return False
    newest.setdefault(TUNER, f"{place}/{TUNER}")  # written before any of the others: it is missed if it is not there
    for path in newest.values():
        try:
            with files.open(path) as file:
                content = file.read()
            if path != newest[TRIALS]:
                pickle.loads(content)
                continue
            state = json.loads(content)
            found = [(json.loads(trial), json.loads(metadata)) for trial, metadata in state["trial_data"]]
            state["runner_data"]
        except Failure:
            raise
        except Exception as error:  # what a broken pickle raises is anything
            raise Failure(
                f"{redact_text(path)} cannot be read ({first_line(error)}), and the search cannot go on from it; give "
                f"the file back, or remove {redact_text(place)}, and the same command begins the search anew"
            ) from error
    return bool(found)


def progress(axes: Sequence[Axis], name: str) -> Any:
    """A line as each trial ends, and gauges of how many are in which state."""
    from ray import tune
    from ray.tune.experiment import Trial

    states = (Trial.PENDING, Trial.RUNNING, Trial.PAUSED, Trial.TERMINATED, Trial.ERROR)

    class Lines(tune.Callback):
        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
            for state in states:
                count = sum(trial.status == state for trial in trials)
                gauges.show(gauges.TRIALS, count, search=name, state=state.lower())

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            found = trial.last_result or {}
            if SCORE in found:
                numbers = f"clean {found[CLEAN]:.3f}, robust {found[ROBUST]:.3f} after {found['epoch']} epochs"
                print(
                    f"trial {trial.trial_id}  {numbers}: {', '.join(overrides(rounded(trial.config, axes)))}",
                    flush=True,
                )

    return Lines()


def config(search: Mapping[str, Any], epochs: int, concurrent: int) -> Any:
    """Ray Tune's: the searcher, the scheduler, and how many trials."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    algorithm, halving = search["algorithm"], search["halving"]
    pareto = algorithm in PARETO
    scheduler = None
    if halving["use"]:
        scheduler = ASHAScheduler(
            time_attr="epoch",  # ours: Tune's own count begins anew in a trial that is continued
            max_t=epochs + 1,  # whoever comes to the end ends by itself, with what it found there
            grace_period=min(halving["first"], epochs),
            reduction_factor=halving["factor"],
        )
    return tune.TuneConfig(
        metric=None if pareto else SCORE,
        mode=None if pareto else "max",
        search_alg=_searcher(algorithm, search["seed"], concurrent),
        scheduler=scheduler,
        num_samples=1 if algorithm == "grid" else search["trials"],
        max_concurrent_trials=None if algorithm in LISTED else concurrent,  # whose generator counts for itself
        reuse_actors=not halving["use"],  # one that was ended early may not have ended its workers
    )


def _searcher(algorithm: str, seed: int, concurrent: int) -> Any:
    if algorithm in LISTED:
        from ray.tune.search import BasicVariantGenerator

        return BasicVariantGenerator(max_concurrent=concurrent, random_state=seed)
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if algorithm == "nsga2":
        sampler: Any = optuna.samplers.NSGAIISampler(seed=seed)
    else:
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
    if algorithm in PARETO:
        return OptunaSearch(metric=[CLEAN, ROBUST], mode=["max", "max"], sampler=sampler)
    return OptunaSearch(sampler=sampler)

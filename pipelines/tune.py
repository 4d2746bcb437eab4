"""``holdfast tune``: a search over the settings of a training, its front, and the finalists proven over seeds."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import cluster, compose, outcome, places
from pipelines.errors import Failure, Stopped, first_line
from pipelines.search import finalists, front, shown, space, tuner
from pipelines.search.asked import Asked, asked
from pipelines.search.front import Trial
from pipelines.search.trial import CLEAN, ROBUST, Setting
from pipelines.tracking import git, runs, versions


def tune(lines: Sequence[str], console: Console, recipes: Path | None, json: str | None, debug: bool = False) -> None:
    """Search, print the front, train the finalists over seeds, attack them, register the winner.

    ``lines``: settings of the search, and of the training.  The same lines again, or ``resume=NAME``, go on where the
    search was left.  Errors: ``Misuse`` before any work; ``Failure`` if no trial came to an end.
    """
    search = asked(lines, recipes, json)
    setting, at_once = _begin(search, debug)
    console.print(
        f"{search.name}: run {setting.parent}, {search.trials} trials, {at_once} at once, in {search.folder}",
        soft_wrap=True,
    )
    for note in search.notes:
        console.print(f"[yellow]warning[/] {note}", soft_wrap=True)
    try:
        with cluster.own_signals():
            config, base = search.config["search"], search.base
            results = tuner.fit(config, search.axes, setting, base["epochs"], at_once, base["checkpoint"]["failures"])
        trials = _trials(search, results, console)
        found = _conclude(search, setting, trials, console, debug)
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt | Stopped) else "FAILED"
        with suppress(Failure):  # the error that ended the search is the one to tell
            runs.close_run(search.uri, setting.parent, status, 5.0)
        raise
    runs.close_run(search.uri, setting.parent)
    outcome.leave(found, json)
    console.print(_said(found), soft_wrap=True, markup=False)


def _begin(search: Asked, debug: bool) -> tuple[Setting, int]:
    """What its trials share, and how many run at once."""
    base, name = search.base, search.name
    places.owner(base["storage"], name, search.digest, search.identity)
    runs.check(search.uri)
    cluster.connect(debug, dashboard=True)
    use_gpu, resources = cluster.placement({**base, "parallel": {**base["parallel"], "cpus_per_worker": _cpus(base)}})
    run_id = runs.open_run(
        search.uri,
        base["tracking"]["experiment"],
        key=f"{name}-{search.digest}",
        name=name,
        params={"search": search.config["search"], "training": compose.computed(base)},
        tags={"search": name, "recipe": base["recipe"]},
        git=git.state(),
    )
    places.claim(base["storage"], name, search.digest, search.identity)
    search.remember()
    setting = Setting(
        lines=(*search.theirs, *search.placed),
        recipes=str(search.recipes.resolve()) if search.recipes else None,
        folder=search.folder,
        key=search.digest[:16],
        parent=run_id,
        search=name,
        weights=dict(search.config["search"]["weights"]),
        cpus=resources["CPU"],
        axes=search.axes,
    )
    return setting, search.config["concurrent"] or _concurrent(base, use_gpu, resources["CPU"])


def _cpus(base: Mapping[str, Any]) -> float:
    """One processor a worker where none are asked for: a search has better use for the others."""
    return float(base["parallel"]["cpus_per_worker"] or 1)


def _concurrent(base: Mapping[str, Any], use_gpu: bool, cpus: float) -> int:
    import ray

    held = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max(1, cluster.slots(held, cpus, use_gpu) // base["workers"])


def _trials(search: Asked, results: Any, console: Console) -> list[Trial]:
    """Those that reported an epoch and did not fail; one that ASHA ended could not end its own run.

    Errors: ``Failure`` for none.
    """
    trials, failed = [], []
    for result in results:
        metrics = result.metrics or {}
        sample = space.rounded(result.config or {}, search.axes)
        if result.error is not None:
            failed.append(f"trial {', '.join(space.overrides(sample))} failed: {first_line(result.error)}")
        elif ROBUST in metrics:
            numbers = metrics[CLEAN], metrics[ROBUST], metrics["epoch"], metrics.get("steps"), metrics["run_id"]
            trials.append(Trial(metrics["trial_id"], sample, *numbers, metrics.get("seconds")))
    for problem in failed:
        console.print(f"[yellow]warning[/] {problem}", soft_wrap=True)
    for trial in trials:
        if trial.steps is None:
            runs.close_run(search.uri, trial.run_id)
    if not trials:
        said = failed[0] if failed else "nothing"
        raise Failure(f"{search.name}: no trial came to its first epoch and did not fail; the first said: {said}")
    return trials


def _conclude(
    search: Asked, setting: Setting, trials: Sequence[Trial], console: Console, debug: bool
) -> dict[str, Any]:
    """Rank, prove the best over seeds, register the winner; all of it in the search's own run."""
    config, name = search.config, search.base["register_as"]
    ranked = front.ranked(trials, config["choose"])
    shown.trials(ranked, config["choose"], console)
    proven = finalists.prove(ranked[: config["finalists"]], setting, config, console, debug)
    won = finalists.winner(proven, config["choose"])
    version = finalists.register(won, setting, name, config["choose"], console, debug)
    shown.finalists(proven, won, console)
    found = {
        "name": search.name,
        "run_id": setting.parent,
        "choose": config["choose"],
        "trials": [shown.plain(trial) for trial in ranked],
        "front": [trial.name for trial in front.front(trials)],
        "importance": shown.importance(trials, search.axes, config["search"]["weights"]),
        "finalists": [finalist.plain() for finalist in proven],
        "winner": won.trial.name,
        "winner_sample": won.trial.said,
        "registered_as": name,
        "version": version.number if version else None,
        "challenger": version is not None and versions.CHALLENGER in version.aliases,
        "epochs": sum(trial.epochs for trial in trials),
        "cost": shown.cost(trials, proven),
    }
    shown.leave(search.uri, setting.parent, found, ranked)
    return found


def _said(found: Mapping[str, Any]) -> str:
    if found["version"]:
        place = "its challenger" if found["challenger"] else "which an earlier run of this search registered"
        return f"registered: models:/{found['registered_as']}/{found['version']}, {place}"
    return f"not registered: say register_as=NAME, and the same command registers {found['winner_sample']}"

"""``holdfast tune``: a search over the settings of a training, its front, and the finalists proven over seeds."""

import json as script
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import cluster, compose, outcome, places, storage
from pipelines.errors import Misuse, first_line
from pipelines.prepare import prepare
from pipelines.search import finalists, front, shown, space, tuner
from pipelines.search.front import Trial
from pipelines.search.space import Axis
from pipelines.search.trial import CLEAN, ROBUST, Setting
from pipelines.settings import Tune
from pipelines.tracking import git, runs

SEARCH = "search.json"
"""In the search's folder of ``storage``: the command that began it, for ``resume``."""
OURS = tuple(Tune.__dataclass_fields__)


def tune(lines: Sequence[str], console: Console, recipes: Path | None, json: str | None, debug: bool = False) -> None:
    """Search, print the front, train the finalists over seeds, attack them, register the winner.

    ``lines``: settings of the search, and of the training.  The same lines again, or ``resume=NAME``, go on where the
    search was left.  Errors: ``Misuse`` before any work.
    """
    lines, recipes = _resumed(lines, recipes)
    ours = [line for line in lines if line.lstrip("+").partition("=")[0].partition(".")[0] in OURS]
    theirs = [line for line in lines if line not in ours]
    config = compose.compose("tune", ours, recipes)
    base = places.located(compose.compose("train", theirs, recipes))
    search = config["search"]
    axes = space.axes(search["space"], search["algorithm"])
    tuner.check(search, axes)
    _check(config, base, json)
    axes, notes = _kinks(axes, base, config["prune_relu"])
    space.check(axes, lambda more: compose.compose("train", [*theirs, *more], recipes))
    data, _ = prepare(base)

    identity = {
        "training": compose.computed(base),
        "search": search,
        "data": data.digest,
        "axes": [a.key for a in axes],
    }
    digest = compose.digest(identity)
    name = config["name"] or f"{base['recipe']}-search-{digest[:10]}"
    folder = places.at(base["storage"], name)
    places.owner(base["storage"], name, digest, identity)
    runs.check(base["tracking"]["uri"])
    cluster.connect(debug, dashboard=True)
    use_gpu, resources = cluster.placement({**base, "parallel": {**base["parallel"], "cpus_per_worker": _cpus(base)}})
    at_once = config["concurrent"] or _concurrent(base, use_gpu, resources["CPU"])
    uri = base["tracking"]["uri"]
    run_id = runs.open_run(
        uri,
        base["tracking"]["experiment"],
        key=f"{name}-{digest}",
        name=name,
        params={"search": search, "training": compose.computed(base)},
        tags={"search": name, "recipe": base["recipe"]},
        git=git.state(),
    )
    places.claim(base["storage"], name, digest, identity)
    told = lines if config["name"] else [*lines, f"name={name}"]
    own = str(recipes.resolve()) if recipes else None
    storage.write(f"{folder}/{SEARCH}", _json({"lines": told, "recipes": own}))
    console.print(f"{name}: run {run_id}, {_many(axes, search)} trials, {at_once} at once, in {folder}", soft_wrap=True)
    for note in notes:
        console.print(f"[yellow]warning[/] {note}", soft_wrap=True)
    setting = Setting(
        (*theirs, *_absolute(base)), own, folder, digest[:16], run_id, name, dict(search["weights"]), resources["CPU"]
    )
    try:
        with cluster.own_signals():
            results = tuner.fit(search, axes, setting, base["epochs"], at_once, base["checkpoint"]["failures"])
        trials, failed = _trials(results)
        for problem in failed:
            console.print(f"[yellow]warning[/] {problem}", soft_wrap=True)
        _end(uri, trials)
        if not trials:
            raise Misuse(
                f"{name}: no trial came to its first epoch; the first said: {failed[0] if failed else 'nothing'}"
            )
        ranked = front.ranked(trials, config["choose"])
        shown.trials(ranked, config["choose"], console)
        proven = finalists.prove(ranked[: config["finalists"]], setting, config, console, debug)
        won = finalists.winner(proven, config["choose"])
        version = finalists.register(won, setting, base["register_as"], config["choose"], console, debug)
        shown.finalists(proven, won, console)
        found = {
            "name": name,
            "run_id": run_id,
            "choose": config["choose"],
            "trials": [shown.plain(trial) for trial in ranked],
            "front": [trial.name for trial in front.front(trials)],
            "importance": shown.importance(trials, axes, search["weights"]),
            "finalists": [finalist.plain() for finalist in proven],
            "winner": won.trial.name,
            "registered_as": base["register_as"],
            "version": version,
            "epochs": sum(trial.epochs for trial in trials),
        }
        shown.leave(uri, run_id, found, ranked)
    except BaseException as error:
        runs.close_run(uri, run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", 5.0)
        raise
    runs.close_run(uri, run_id)
    outcome.leave(found, json)
    said = (
        f"registered: models:/{base['register_as']}/{version}, its challenger"
        if version
        else (f"not registered: say register_as=NAME, and the same command registers {won.trial.said}")
    )
    console.print(said, soft_wrap=True, markup=False)


def _resumed(lines: Sequence[str], recipes: Path | None) -> tuple[list[str], Path | None]:
    """The lines and the folder of recipes of the search that ``resume=NAME`` names, where it is given."""
    named = [line.partition("=")[2] for line in lines if line.startswith("resume=")]
    if not named:
        return list(lines), recipes
    where = [line.partition("=")[2] for line in lines if line.startswith("storage=")] or ["runs"]
    if others := [line for line in lines if not line.startswith(("resume=", "storage="))]:
        raise Misuse(f"resume={named[0]} goes on with the search as it was begun: leave {', '.join(others)} out")
    path = f"{where[0].rstrip('/')}/{named[0]}/{SEARCH}"
    try:
        with storage.files(path).open(path) as file:
            begun = script.loads(file.read())
        return list(begun["lines"]), recipes or (Path(begun["recipes"]) if begun["recipes"] else None)
    except FileNotFoundError as error:
        raise Misuse(f"resume={named[0]}: {path} is not there; correct the name, or storage=") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Misuse(
            f"resume={named[0]}: {path} is not whole ({first_line(error)}); give the search's own lines"
        ) from error


def _check(config: Mapping[str, Any], base: Mapping[str, Any], json: str | None) -> None:
    front.rule(config["choose"])
    for name, least in (("finalists", 1), ("seeds", 1), ("concurrent", 1), ("examples", 1)):
        if config[name] is not None and config[name] < least:
            raise Misuse(f"{name}={config[name]} must be at least {least}")
    if base["alarm"]["policy"] == "off":
        raise Misuse(
            "alarm.policy=off: a search compares what the alarm measures after each epoch; set alarm.policy=warn"
        )
    if json and not os.access(Path(json).absolute().parent, os.W_OK):
        raise Misuse(f"--json {json}: its folder is not there or not writable; make it first")


def _kinks(axes: Sequence[Axis], base: Mapping[str, Any], prune: bool) -> tuple[tuple[Axis, ...], list[str]]:
    """ReLU under a gradient penalty: warned of, or, when asked, left out.  Its weight and eps are one axis."""
    from pipelines import parts
    from trainers.activations.replace import KINKED, NAMES

    if not parts.objective(base).second_order:
        return tuple(axes), []
    if {"objective.weight", "objective.threat.eps"} <= {axis.key for axis in axes}:
        raise Misuse(
            "search.space has objective.weight and objective.threat.eps, and the penalty feels only their product: "
            "search objective.weight alone"
        )
    found, notes = [], []
    for axis in axes:
        bad = [v for v in axis.values if axis.key == "model.activation" and issubclass(NAMES.get(v, object), KINKED)]
        if bad and prune:
            axis = Axis(axis.key, axis.kind, tuple(v for v in axis.values if v not in bad))
            if not axis.values:
                raise Misuse(f"search.space.{axis.key}: prune_relu=true leaves nothing of it; add gelu or silu")
        elif bad:
            notes.append(
                f"search.space.{axis.key} holds {', '.join(map(str, bad))}: its second derivative is zero almost "
                "everywhere and a gradient penalty hardly trains; prune_relu=true leaves it out"
            )
        found.append(axis)
    return tuple(found), notes


def _absolute(base: Mapping[str, Any]) -> list[str]:
    """Local places of the training, for trials that run in folders of their own."""
    local = {"tracking.uri": base["tracking"]["uri"], "data.path": base["data"].get("path")}
    local["model.weights"] = base["model"]["weights"] if base["model"]["weights"] != "timm" else None
    return [f"{key}={value}" for key, value in local.items() if value]


def _cpus(base: Mapping[str, Any]) -> float:
    """One processor a worker where none are asked for: a search has better use for the others."""
    return float(base["parallel"]["cpus_per_worker"] or 1)


def _concurrent(base: Mapping[str, Any], use_gpu: bool, cpus: float) -> int:
    import ray

    held = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max(1, cluster.slots(held, cpus, use_gpu) // base["workers"])


def _many(axes: Sequence[Axis], search: Mapping[str, Any]) -> int:
    return (space.size(axes) or 0) if search["algorithm"] == "grid" else int(search["trials"])


def _trials(results: Any) -> tuple[list[Trial], list[str]]:
    found, failed = [], []
    for result in results:
        metrics = result.metrics or {}
        if result.error is not None:
            failed.append(f"trial {', '.join(space.overrides(result.config))} failed: {first_line(result.error)}")
        if ROBUST in metrics:
            found.append(
                Trial(
                    metrics["trial_id"],
                    dict(result.config),
                    metrics[CLEAN],
                    metrics[ROBUST],
                    metrics["epoch"],
                    metrics.get("steps"),
                    metrics["run_id"],
                )
            )
    return found, failed


def _end(uri: str, trials: Sequence[Trial]) -> None:
    """A trial that ASHA ended could not end its own run."""
    for trial in trials:
        if trial.steps is None:
            runs.close_run(uri, trial.run_id)


def _json(content: Mapping[str, Any]) -> bytes:
    return (script.dumps(content, indent=2) + "\n").encode()

"""``holdfast train``: one config to one tracked, registered model."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import cluster, compose, outcome, places, progress, science
from pipelines.errors import Failure, Lost, Stopped
from pipelines.outcome import Outcome
from pipelines.prepare import prepare
from pipelines.redact import redact, redact_text
from pipelines.storage import ray_filesystem
from pipelines.tracking import git, holding, registry, runs
from pipelines.tracking.journal import Journal


@dataclass(frozen=True)
class Within:
    """A training that is part of something larger.  ``key``: of that, so that its runs are nobody else's; ``tags``: for
    the run; ``callbacks``: of Ray Train.  ``model``: whether it is kept in MLflow."""

    key: str
    tags: Mapping[str, str]
    callbacks: Callable[[str], list[Any]] = lambda run_id: []
    model: bool = True


def train(config: dict[str, Any], console: Console, debug: bool = False, within: Within | None = None) -> Outcome:
    """Refuse what cannot work, train in Ray workers, evaluate, register; the same config continues its run.

    Errors: ``Misuse`` before any work; ``Failure`` with the checkpoint kept; ``Lost`` when the cluster goes away.
    """
    config = places.located(config)
    data, doubts = prepare(config)
    name = compose.run_name(config, data.digest)
    with ThreadPoolExecutor(1) as beside:  # Ray takes seconds to start, most of them waiting
        answered = beside.submit(runs.check, config["tracking"]["uri"])
        cluster.connect(debug)
        answered.result()
    use_gpu, resources = cluster.placement(config)
    identity = compose.computed(config)
    digest = f"{compose.digest(identity)}-{data.digest}"
    places.owner(config["storage"], name, digest, identity)

    doubts += places.doubts(config, cluster.size())
    for doubt in doubts:
        console.print(f"[yellow]warning[/] {doubt}", soft_wrap=True)
    run_id = runs.open_run(
        config["tracking"]["uri"],
        config["tracking"]["experiment"],
        key=f"{name}-{digest}" + (f"-{within.key}" if within else ""),
        name=name,
        params={key: config[key] for key in config if key not in ("json", "tracking")},
        tags={**_tags(config, doubts), **(within.tags if within else {})},
        dataset={
            "name": _data_name(config),
            "digest": data.digest,
            "source": str(config["data"].get("path") or "embedded"),
        },
        git=git.state(),
    )
    places.claim(config["storage"], name, digest, identity)
    console.print(f"{name}: run {run_id} in {redact_text(config['tracking']['uri'])}")
    uri = config["tracking"]["uri"]
    try:
        callbacks = within.callbacks(run_id) if within else []
        with holding.held(uri, run_id, holding.TRAIN, config["workers"], resources):
            result = _fit(config, name, run_id, digest, use_gpu, resources, console, callbacks)
            done = _conclude(config, name, run_id, result, data, doubts, within is None or within.model)
    except BaseException as error:
        with suppress(Failure):  # the error that ended the run is the one to tell
            runs.close_run(uri, run_id, "KILLED" if isinstance(error, KeyboardInterrupt | Stopped) else "FAILED", 5.0)
        raise
    outcome.leave(done, config["json"])
    with suppress(Exception):  # the page's description is a courtesy
        runs.describe(uri, run_id, outcome.markdown(done))
    runs.close_run(uri, run_id, "FINISHED")
    for line in outcome.lines(done):
        console.print(line, soft_wrap=True)
    return done


def _fit(
    config: Mapping[str, Any],
    name: str,
    run_id: str,
    digest: str,
    use_gpu: bool,
    resources: dict[str, float],
    console: Console,
    callbacks: list[Any],
) -> Any:
    import ray.exceptions
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    from pipelines.trainer import Trainer
    from pipelines.worker import worker

    filesystem, path = ray_filesystem(config["storage"])
    board = progress.board()
    trainer = Trainer(
        # Apart from the config, which Ray shows on its dashboard: the address may hold a password.
        partial(worker, config["tracking"]["uri"]),  # type: ignore[arg-type]  # Ray's stub knows no return value
        train_loop_config={
            **config,
            "tracking": redact(config["tracking"]),
            "run_id": run_id,
            "digest": digest,
            "board": board,
            "threads": max(1, math.floor(resources["CPU"])),
            "spool": str(Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}"),
        },
        scaling_config=ScalingConfig(num_workers=config["workers"], use_gpu=use_gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config["checkpoint"]["failures"]),
            checkpoint_config=CheckpointConfig(num_to_keep=config["checkpoint"]["keep"]),
            callbacks=callbacks,
        ),
    )
    try:
        with progress.display(board, name, console), cluster.own_signals():
            result: Any = trainer.fit()
    except SystemExit as stop:  # Ray Train's answer to SIGINT, after it has ended the workers
        raise Stopped("SIGINT") from stop
    except TrainingFailedError as error:
        raise Failure(_reason(error, config)) from error
    except (ray.exceptions.RaySystemError, ConnectionError) as error:
        raise Lost(
            f"the Ray cluster went away ({error}); the same command continues from the last checkpoint"
        ) from error
    if "failed" in result.return_value:
        raise Failure(result.return_value["failed"]) from RuntimeError(result.return_value["traceback"])
    return result


def _reason(error: Any, config: Mapping[str, Any]) -> str:
    """The first worker's last line, without the traceback."""
    failures = getattr(error, "worker_failures", None) or {}
    cause = next(iter(failures.values()), getattr(error, "controller_failure", error))
    last = next((line.strip() for line in reversed(str(cause).splitlines()) if line.strip()), type(cause).__name__)
    return (
        f"training failed after {config['checkpoint']['failures']} retries: {last}; the last checkpoint in "
        f"{config['storage']} is kept, the same command continues from it (--debug shows the workers' output)"
    )


def _conclude(
    config: Mapping[str, Any], name: str, run_id: str, result: Any, data: Any, doubts: list[str], model: bool
) -> Outcome:
    """Bring home what the workers left: late metrics to the tracking server, the model to the registry."""
    from pipelines.worker import MODEL, RUN
    from trainers import models

    uri = config["tracking"]["uri"]
    found = result.return_value
    version = None
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    try:
        result.checkpoint.to_directory(str(folder))
        pending = json.loads((folder / RUN).read_text())["pending"]
        _deliver(config, run_id, pending)
        if model:
            version = registry.register(
                uri,
                run_id,
                models.load(folder / MODEL),
                folder / MODEL,
                config["register_as"],
                metrics=found["metrics"],
                tags={**_tags(config, doubts), **_made_of(config, data.digest)},
                example_shape=data.input_size,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(
        run_id=run_id,
        run_name=name,
        tracking_uri=redact_text(uri),
        registered_as=config["register_as"],
        version=version,
        threat=_tags(config, [])["threat"],
        attack=outcome.attack(config["evaluation"]["attack"]),
        metrics=found["metrics"],
        validation=found.get("validation", {}),
        cost=found["cost"],
        ended=found["ended"],
        doubts=doubts,
        skipped=found["skipped"],
        storage=redact_text(f"{config['storage']}/{name}"),
    )


def _deliver(config: Mapping[str, Any], run_id: str, pending: list[Any]) -> None:
    """Send the metrics the tracking server has not confirmed; a server that is away is waited for."""
    patience = 60 * config["tracking"]["patience_minutes"]
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        journal = Journal(config["tracking"]["uri"], run_id, folder, pending, system_seconds=None)
        left = journal.flush(patience)
        journal.close(0.0)
    if left:
        raise Failure(
            f"tracking.uri={redact_text(config['tracking']['uri'])} was away for tracking.patience_minutes="
            f"{patience / 60:g}: {left} metrics and the model are kept in the last checkpoint; the same command "
            "delivers them when the server is back"
        )


def _tags(config: Mapping[str, Any], doubts: list[str]) -> dict[str, str]:
    threat = config["threat"]
    tags = {"recipe": config["recipe"], "threat": f"{threat['norm']} {threat['eps']:g}"}
    if config["trust"]:
        tags["trust"] = ", ".join(config["trust"])
    if doubts:
        tags["doubts"] = " | ".join(doubts)
    return tags


def _made_of(config: Mapping[str, Any], data: str) -> dict[str, str]:
    """What tells whether training again would be the same: see ``pipelines.retraining``."""
    recipe = compose.digest(compose.recipe(config))
    return {"data_digest": data, "recipe_digest": recipe, "code_digest": science.digest(config["trust"])}


def _data_name(config: Mapping[str, Any]) -> str:
    return str(config["data"]["source"]["_target_"]).split(".")[-1].lower()

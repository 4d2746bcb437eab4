"""One MLflow run a training, whatever happens to its processes."""

import getpass
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from pipelines.errors import Failure, Misuse, first_line
from pipelines.redact import redact, redact_text
from pipelines.tracking import params as parameters
from pipelines.tracking import server
from pipelines.tracking.git import Git
from pipelines.tracking.server import check

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

__all__ = ["RUN_KEY", "Dataset", "check", "close_run", "describe", "open_run"]

RUN_KEY = "holdfast.run_key"
DATA_DIGEST = "holdfast.data_digest"
"""The whole digest; the dataset entity of MLflow holds ``DIGEST_LIMIT`` characters of it."""
DIGEST_LIMIT = 36

STATUSES = ("FINISHED", "FAILED", "KILLED")


class Dataset(TypedDict):
    name: str
    digest: str
    source: str


def open_run(
    uri: str,
    experiment: str,
    key: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, Any] | None = None,
    dataset: Dataset | None = None,
    git: Git | None = None,
) -> str:
    """The id of the run tagged ``holdfast.run_key=key`` in ``experiment``, which is RUNNING when this returns.

    The run is made on the first call and found by every later one, so a retry goes on in it.  Params are written once
    (MLflow refuses to change them) and completed if the first process died in between.  If two processes make the run
    at once, both take the older one and the younger is deleted.  ``MLFLOW_RUN_ID`` is not looked at.

    Errors: ``Misuse`` if the server does not answer or the experiment is deleted.
    """
    server.check(uri)
    client = server.client(uri)
    experiment_id = _experiment(client, uri, experiment)
    run = _oldest(client, experiment_id, key)
    if run is None:
        client.create_run(experiment_id, tags=_tags(key, tags, dataset, git), run_name=redact_text(name))
        run = _settle(client, experiment_id, key)
    run_id = str(run.info.run_id)
    if run.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    _complete_params(client, run, parameters.flatten(params))
    if dataset:
        _complete_dataset(client, run, dataset)
    return run_id


def describe(uri: str, run_id: str, text: str) -> None:
    """``text`` (Markdown) as the description on the run's page."""
    server.client(uri).set_tag(run_id, "mlflow.note.content", redact_text(text))


def close_run(uri: str, run_id: str, status: str = "FINISHED", within: float = 60.0) -> None:
    """End the run as FINISHED, FAILED or KILLED, asking again for ``within`` seconds while the server is away.

    Errors: ``Failure`` if it stays away.
    """
    if status not in STATUSES:
        raise ValueError(f"status={status!r}: give one of {', '.join(STATUSES)}")
    deadline = time.monotonic() + within
    pause = 0.5
    while True:
        try:
            return _terminate(uri, run_id, status, timeout=max(1.0, min(30.0, deadline - time.monotonic())))
        except Exception as error:
            if time.monotonic() + pause > deadline:
                raise Failure(
                    f"tracking.uri={redact_text(uri)} did not take the end of run {run_id} within {within:g} s "
                    f"({redact_text(first_line(error))}); run the same command again when it is back"
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def _terminate(uri: str, run_id: str, status: str, timeout: float) -> None:
    if server.is_http(uri):
        body = {"run_id": run_id, "status": status, "end_time": int(time.time() * 1000)}
        server.call(uri, "runs/update", body, timeout=timeout)
    else:
        server.client(uri).set_terminated(run_id, status)


def _experiment(client: "MlflowClient", uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = server.database(uri)
        # MLflow's own default for a local database is ./mlruns of whichever folder the first process ran in.
        artifacts = (database.parent / "artifacts").as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise Misuse(
            f"tracking.experiment={name} is deleted; restore it "
            f"(`mlflow experiments restore --experiment-id {found.experiment_id}`) or give another name"
        )
    return str(found.experiment_id)


def _with_key(client: "MlflowClient", experiment_id: str, key: str) -> list["Run"]:
    quoted = key.replace("'", "\\'")
    found = client.search_runs([experiment_id], f"tags.`{RUN_KEY}` = '{quoted}'", max_results=50)
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def _oldest(client: "MlflowClient", experiment_id: str, key: str) -> "Run | None":
    return next(iter(_with_key(client, experiment_id, key)), None)


def _settle(client: "MlflowClient", experiment_id: str, key: str) -> "Run":
    """The run all racing processes agree on; every other one of the key, still empty, is deleted."""
    oldest, *younger = _with_key(client, experiment_id, key)
    for run in younger:
        client.delete_run(run.info.run_id)
    return oldest


def _tags(key: str, tags: Mapping[str, Any] | None, dataset: Dataset | None, git: Git | None) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = "unknown"
    every: dict[str, Any] = {"mlflow.user": user, "mlflow.source.name": "holdfast", "mlflow.source.type": "LOCAL"}
    if git:
        every |= {"mlflow.source.git.commit": git.commit, "holdfast.git_dirty": str(git.dirty).lower()}
    if dataset:
        every[DATA_DIGEST] = dataset["digest"]
    every |= redact(tags or {})
    return {parameters.fit_name(name): str(value) for name, value in every.items()} | {RUN_KEY: key}


def _complete_params(client: "MlflowClient", run: "Run", wanted: Mapping[str, str], attempts: int = 3) -> None:
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    missing = [Param(name, value) for name, value in wanted.items() if name not in run.data.params]
    try:
        for start in range(0, len(missing), 100):
            client.log_batch(run.info.run_id, params=missing[start : start + 100])
    except MlflowException:  # a process that opened the run at the same moment wrote them first
        if attempts == 1:
            raise
        _complete_params(client, client.get_run(run.info.run_id), wanted, attempts - 1)


def _complete_dataset(client: "MlflowClient", run: "Run", dataset: Dataset, attempts: int = 3) -> None:
    from mlflow.exceptions import MlflowException

    if dataset["digest"][:DIGEST_LIMIT] in _digests(run):
        return
    try:
        _log_dataset(client, run.info.run_id, dataset)
    except MlflowException:  # a process of the same experiment wrote the same data set at the same moment
        if attempts == 1:
            raise
        _complete_dataset(client, client.get_run(run.info.run_id), dataset, attempts - 1)


def _digests(run: "Run") -> set[str]:
    return {logged.dataset.digest for logged in run.inputs.dataset_inputs} if run.inputs else set()


def _log_dataset(client: "MlflowClient", run_id: str, dataset: Dataset) -> None:
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    source = redact_text(dataset["source"])
    kind = source.split("://")[0] if "://" in source else "local"
    place = {"url": source} if kind in ("http", "https") else {"uri": source}
    kind = "http" if kind == "https" else kind
    entity = Entity(dataset["name"], dataset["digest"][:DIGEST_LIMIT], source_type=kind, source=json.dumps(place))
    client.log_inputs(run_id, datasets=[DatasetInput(entity, tags=[InputTag("mlflow.data.context", "training")])])

"""The trained model as a registered version: a graph anybody can load, and the network behind it."""

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import Failure, Misuse
from pipelines.redact import redact, redact_text
from pipelines.tracking import export, params, server

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient
    from torch import nn

RUN = "holdfast.run_id"
"""The tag of a logged model that names the run it came from."""
ARTEFACT = "holdfast.artefact"
"""The tag of a logged model and of its versions: ``export.digest`` of its files."""
RECORDS, RETRAININGS = ".promotions", ".retrainings"
"""Ends of the names of registered models that hold records (``audit``), and no model."""


def check_name(name: str, setting: str = "register_as") -> None:
    """``Misuse`` for a name that the registry would refuse after the training, and for that of records."""
    if not name.strip() or any(c in name for c in "/:") or name in (".", ".."):
        raise Misuse(f"{setting}={name!r} cannot name a model: leave out '/' and ':', as in {setting}=digits")
    for end in (RECORDS, RETRAININGS):
        if name.endswith(end):
            raise Misuse(
                f"{setting}={name} is where the {end[1:]} of {name.removesuffix(end)} are recorded: give another name"
            )


def register(
    uri: str,
    run_id: str,
    model: "nn.Module",
    directory: Path,
    name: str | None,
    metrics: Mapping[str, float],
    tags: Mapping[str, Any],
    example_shape: Sequence[int],
) -> int | None:
    """Make ``model`` the next version of ``name``, or, without a name, a model of the run only; the version's number.

    ``model`` takes pixels ``(N, *example_shape)`` in [0, 1], float32.  ``mlflow.pytorch.load_model("models:/name/1")``
    runs it for any N >= 1 with pickle forbidden, and gradients, of second order too, go through to the pixels.  The
    graph stays on the CPU it was exported on; ``load`` gives the network for a GPU.  ``directory`` holds what
    ``trainers.models.save`` wrote and travels inside.  ``metrics`` and ``tags`` become tags of the version.

    Asked again for the same run and name it answers the version that is there.  Whatever fails, nothing half-made
    stays.  Errors: ``Misuse`` for a name that cannot be or missing files; ``Failure`` for the rest.
    """
    if name is not None:
        check_name(name)
    missing = [file for file in export.FILES if not (directory / file).is_file()]
    if missing:
        raise Misuse(f"{directory} lacks {', '.join(missing)}: save the model there before it is registered")
    try:
        client = server.client(uri)
        if name and (there := _version_of(client, name, run_id)):
            return there
        labels = _labels(metrics, tags)
        model_id = _ready_model(client, run_id) or _new_model(
            client, run_id, model, directory, example_shape, labels, metrics
        )
        if name is None:
            return None
        mark = {ARTEFACT: client.get_logged_model(model_id).tags.get(ARTEFACT, "")}
        with server.as_default(uri):
            return _new_version(client, name, run_id, model_id, {**labels, **mark})
    except Exception as error:
        raise Failure(
            f"register_as={name}: the model of run {run_id} is not registered ({_first_line(error)}); it is kept in "
            "the run's last checkpoint, and the same command tries again"
        ) from error


def load(source: str, tracking_uri: str | None = None) -> "nn.Module":
    """The ordinary ``nn.Module`` of ``models:/name/1``, ``models:/name@alias``, ``models:/m-…`` or a folder.

    ``trainers.models.load`` rebuilds it from its safetensors: on the CPU, in eval mode, free to train or to move.

    ``mlflow.pytorch.load_model`` of the same version gives the exported graph instead: the same logits and gradients,
    but its ``.eval()`` and ``.train()`` raise ``NotImplementedError``, its ``.training`` reads True although BatchNorm
    and dropout are fixed in eval mode, and it stays on the CPU.

    Errors: ``Failure`` if there is no such model, or it was not registered by ``register``.
    """
    from trainers import models

    uri = server.absolute(tracking_uri) if tracking_uri else None
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        try:
            found = source if Path(source).is_dir() else _download(source, folder, uri)
        except Exception as error:
            where = f" from {redact_text(uri)}" if uri else ""
            raise Failure(f"{source} cannot be loaded{where}: {_first_line(error)}") from error
        place = export.files_in(Path(found))
        if place is None:
            raise Failure(f"{source} holds no {' and '.join(export.FILES)}: it was not registered by holdfast")
        return models.load(place)


def _download(source: str, folder: str, uri: str | None) -> str:
    import mlflow.artifacts

    with export.quiet(), server.as_default(uri) if uri else contextlib.nullcontext():
        return str(mlflow.artifacts.download_artifacts(source, dst_path=folder, tracking_uri=uri, registry_uri=uri))


def _labels(metrics: Mapping[str, float], tags: Mapping[str, Any]) -> dict[str, str]:
    every = {**{f"metrics.{name}": f"{value:.6g}" for name, value in metrics.items()}, **redact(tags)}
    return {params.fit_name(name): str(value)[:5000] for name, value in every.items()}


def _version_of(client: "MlflowClient", name: str, run_id: str) -> int | None:
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    return next((int(v.version) for v in versions if v.name == name and v.status == "READY"), None)


def _ready_model(client: "MlflowClient", run_id: str) -> str | None:
    """The run's complete model, if an earlier attempt got that far; its incomplete ones are deleted."""
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"tags.`{RUN}` = '{run_id}'")
    ready = None
    for model in found:
        if str(model.status) == "READY":
            ready = str(model.model_id)
        else:
            client.delete_logged_model(model.model_id)
    return ready


def _new_model(
    client: "MlflowClient",
    run_id: str,
    model: "nn.Module",
    directory: Path,
    example_shape: Sequence[int],
    labels: dict[str, str],
    metrics: Mapping[str, float],
) -> str:
    """Export first, then store: what is likeliest to fail does so before the server knows of it."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run = client.get_run(run_id)
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        local = Path(folder) / "model"
        export.export(model, directory, example_shape, local)
        made = client.create_logged_model(
            run.info.experiment_id,
            "model",
            source_run_id=run_id,
            tags={**labels, RUN: run_id},
            model_type="classifier",
        )
        try:
            described = Model.load(str(local))
            described.model_id, described.run_id = made.model_id, run_id
            described.save(str(local / "MLmodel"))
            client.set_logged_model_tags(made.model_id, {ARTEFACT: export.digest(local)})
            client.log_model_artifacts(made.model_id, str(local))
            client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
            client.log_batch(run_id, metrics=_metrics_of(run, metrics, made.model_id))
            client.finalize_logged_model(made.model_id, "READY")
        except Exception:
            with contextlib.suppress(Exception):
                client.delete_logged_model(made.model_id)
            raise
    return str(made.model_id)


def _metrics_of(run: Any, metrics: Mapping[str, float], model_id: str) -> list["Metric"]:
    """``metrics`` tied to the model.  One the run has already is repeated exactly, which adds no point to the run;
    one that the run ends with another value of stays a tag of the model."""
    from mlflow.entities import Metric

    last = {m.key: m for m in run.data.to_proto().metrics}
    now = int(time.time() * 1000)
    tied = []
    for name, value in metrics.items():
        key = params.fit_name(name)
        if key not in last:
            tied.append(Metric(key, float(value), now, 0, model_id=model_id))
        elif math.isclose(last[key].value, value, rel_tol=1e-12):
            tied.append(Metric(key, last[key].value, last[key].timestamp, last[key].step, model_id=model_id))
    return tied


def _new_version(client: "MlflowClient", name: str, run_id: str, model_id: str, labels: dict[str, str]) -> int:
    from mlflow.exceptions import MlflowException

    first = False
    try:
        client.create_registered_model(name)
        first = True
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    try:
        with export.quiet():
            made = client.create_model_version(name, f"models:/{model_id}", run_id, tags=labels, model_id=model_id)
    except Exception:
        if first:
            with contextlib.suppress(Exception):
                client.delete_registered_model(name)
        raise
    listed = json.dumps([{"name": name, "version": int(made.version)}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": listed})
    return int(made.version)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return redact_text(text.splitlines()[0] if text else type(error).__name__)[:500]

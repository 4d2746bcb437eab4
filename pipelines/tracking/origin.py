"""Where a model stands in MLflow: which version, made by which run, judged at what."""

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import Misuse, first_line
from pipelines.redact import redact_text
from pipelines.tracking import server
from pipelines.tracking.registry import RUN

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

SCHEMES = ("models:/", "runs:/")
_BY_VERSION = re.compile(r"models:/([^/:]+)/(\d+)")
_BY_ALIAS = re.compile(r"models:/([^/:]+)@([^/:@]+)")
_BY_MODEL = re.compile(r"models:/(m-\w+)")
_BY_RUN = re.compile(r"runs:/(\w+)(?:/model)?/?")


@dataclass(frozen=True)
class Origin:
    """``address``: of the model's files, which no alias can move.  ``title``: short, for people.  ``threat``: norm and
    eps its run was judged at.  ``clean_accuracy``: what the version, or else the run, says of itself."""

    address: str
    title: str
    run_id: str | None
    version: tuple[str, int] | None
    threat: tuple[str, float] | None
    clean_accuracy: float | None


def origin(source: str, uri: str, setting: str = "source") -> Origin:
    """The facts of ``models:/name/1``, ``models:/name@alias``, ``models:/m-…`` or ``runs:/RUN_ID``, whose model need
    not be registered.

    Errors: ``Misuse``, naming ``setting``, if the server does not answer or has no such model.
    """
    from mlflow.exceptions import MlflowException

    asked = f"{setting}={redact_text(source)}"
    database = server.database(uri)
    if database and not database.exists():
        raise Misuse(f"tracking.uri={uri}: there is no such database, so {asked} is not there; correct tracking.uri")
    server.check(uri)
    client = server.client(uri)
    try:
        if match := _BY_VERSION.fullmatch(source) or _BY_ALIAS.fullmatch(source):
            return _of_version(client, *match.groups())
        if match := _BY_MODEL.fullmatch(source):
            return _of_model(client, client.get_logged_model(match[1]))
        if match := _BY_RUN.fullmatch(source):
            return _of_run(client, client.get_run(match[1]), asked)
    except MlflowException as error:
        raise Misuse(
            f"{asked} is not at tracking.uri={redact_text(uri)} ({redact_text(first_line(error))})"
            f"{_others(client, source)}; correct the one or the other"
        ) from error
    raise Misuse(f"{asked} names no model: write models:/NAME/1, models:/NAME@ALIAS or runs:/RUN_ID")


def _of_version(client: "MlflowClient", name: str, which: str) -> Origin:
    if which.isdigit():
        version = client.get_model_version(name, which)
    else:
        version = client.get_model_version_by_alias(name, which)
    number = int(version.version)
    run = _run(client, version.run_id)
    return _facts(f"models:/{name}/{number}", f"{name}/{number}", run, version.run_id, (name, number), version.tags)


def _of_model(client: "MlflowClient", model: Any) -> Origin:
    run_id = model.tags.get(RUN) or model.source_run_id
    run = _run(client, run_id)
    title = run.info.run_name if run else model.model_id
    return _facts(f"models:/{model.model_id}", title, run, run_id, None, model.tags)


def _of_run(client: "MlflowClient", run: "Run", asked: str) -> Origin:
    run_id = run.info.run_id
    found = client.search_logged_models([run.info.experiment_id], f"tags.`{RUN}` = '{run_id}'")
    ready = [model for model in found if str(model.status) == "READY"]
    if not ready:
        raise Misuse(
            f"{asked}: this run ({run.info.status}) has no finished model; the command that began it goes on with it"
        )
    return _of_model(client, ready[0])


def _run(client: "MlflowClient", run_id: str | None) -> "Run | None":
    """A run may have been deleted for good since its model was registered."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        return client.get_run(run_id) if run_id else None
    return None


def _facts(
    address: str,
    title: str,
    run: "Run | None",
    run_id: str | None,
    version: tuple[str, int] | None,
    tags: dict[str, str],
) -> Origin:
    tags = {**(run.data.tags if run else {}), **tags}
    stated = tags.get("metrics.clean_accuracy", run.data.metrics.get("clean_accuracy") if run else None)
    accuracy = None
    with contextlib.suppress(TypeError, ValueError):
        accuracy = float(stated)  # type: ignore[arg-type]  # tags are anybody's to write
    active = run is not None and run.info.lifecycle_stage == "active"  # a deleted run takes no report
    return Origin(address, title, run_id if active else None, version, _threat(tags.get("threat", "")), accuracy)


def _threat(tag: str) -> tuple[str, float] | None:
    """``"Linf 0.1"``, as a training tags its run; a tag of any other form says nothing."""
    norm, _, eps = tag.partition(" ")
    try:
        return (norm, float(eps)) if norm and eps else None
    except ValueError:
        return None


def _others(client: "MlflowClient", source: str) -> str:
    """What the registry has under the name, or which names it has."""
    from mlflow.exceptions import MlflowException

    name = re.split("[/@]", source.removeprefix("models:/"))[0]
    if not source.startswith("models:/") or "'" in name:
        return ""
    with contextlib.suppress(MlflowException):
        versions = sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'", max_results=20))
        if versions:
            return f"; {name} has versions {', '.join(map(str, versions))}"
        names = [model.name for model in client.search_registered_models(max_results=10)]
        return f"; registered are {', '.join(names) or 'none'}"
    return ""

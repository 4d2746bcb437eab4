"""What runs held, as the tracking server tells it: runs by name, search or version, and how far their attempts came."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Misuse
from pipelines.redact import redact_text
from pipelines.tracking import server, versions
from pipelines.tracking.holding import Start, starts

PAGE = 200
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True, eq=False)
class Run:
    """``began``: milliseconds since 1970."""

    id: str
    name: str
    status: str
    began: int
    tags: Mapping[str, str]

    @property
    def starts(self) -> list[Start]:
        return starts(self.tags)

    @property
    def encloses(self) -> bool:
        """A search or a retraining, which holds nothing but by the runs below it."""
        return not self.starts and ("retraining" in self.tags or ("search" in self.tags and PARENT not in self.tags))


def newest(uri: str, experiment: str, most: int | None, since: int = 0) -> list[Run]:
    """Of those that began ``since`` then (milliseconds since 1970), the newest first."""
    with versions.told(uri, "list the runs"):
        return list(_upto(_runs(uri, experiment, f"attributes.start_time >= {since}"), most))


def _upto(runs: Iterator[Run], most: int | None) -> Iterator[Run]:
    for count, run in enumerate(each for each in runs if not each.encloses):
        if most is not None and count >= most:
            return
        yield run


def find(uri: str, experiment: str, asked: str) -> Run:
    """By its id, the beginning of it, or its name.  Errors: ``Misuse`` for none, and for several."""
    with versions.told(uri, f"find run {asked}"):
        if len(asked) == 32 and (whole := by_id(uri, asked)):
            return whole
        found = [run for run in _runs(uri, experiment) if asked == run.name or (asked and run.id.startswith(asked))]
    if len(found) == 1:
        return found[0]
    where = f"tracking.experiment={experiment} at tracking.uri={redact_text(uri)}"
    if found:
        raise Misuse(f"run={asked}: {len(found)} runs of {where} are called so; give one of {_some(found)}")
    raise Misuse(f"run={asked} is no run of {where}; `holdfast cost` without run= lists the newest")


def by_id(uri: str, run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        return _run(server.client(uri).get_run(run_id))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def searched(uri: str, experiment: str, name: str) -> list[Run]:
    """All runs of the search, the oldest first.  Errors: ``Misuse`` if there is no such search."""
    with versions.told(uri, f"find the search {name}"):
        quoted = name.replace("'", "\\'")
        found = list(_runs(uri, experiment, f"tags.search = '{quoted}'"))
        known = {} if found else {run.tags["search"] for run in _runs(uri, experiment, "tags.search LIKE '%'")}
    if not found:
        raise Misuse(
            f"search={name} is no search of tracking.experiment={experiment} at tracking.uri={redact_text(uri)}; "
            f"there are {', '.join(sorted(known)) or 'none'}"
        )
    return found[::-1]


def of_versions(uri: str, name: str) -> list[tuple[versions.Version, Run | None]]:
    """Every version of the registered model, with its run if that is still there.  Errors: ``Misuse`` for no model."""
    found = []
    for version in versions.listed(uri, name):
        with versions.told(uri, f"find the run of {name}/{version.number}"):
            found.append((version, by_id(uri, version.run_id) if version.run_id else None))
    return found


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    """``(when, value)`` of each point of a metric, the oldest first; when: milliseconds since 1970."""
    with versions.told(uri, f"tell how far run {run_id} came"):
        points = server.client(uri).get_metric_history(run_id, key)
    return sorted((int(point.step), float(point.value)) for point in points)


def _runs(uri: str, experiment: str, where: str = "") -> Iterator[Run]:
    """The newest first."""
    client, token = server.client(uri), None
    there = client.get_experiment_by_name(experiment)
    if there is None:
        known = ", ".join(sorted(each.name for each in client.search_experiments())) or "none"
        raise Misuse(f"tracking.experiment={experiment} is not at tracking.uri={redact_text(uri)}; there are {known}")
    while True:
        page = client.search_runs(
            [there.experiment_id], where, max_results=PAGE, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from map(_run, page)
        token = page.token
        if not token:
            return


def _run(found: Any) -> Run:
    info = found.info
    return Run(info.run_id, info.run_name, info.status, int(info.start_time), dict(found.data.tags))


def _some(runs: list[Run], most: int = 5) -> str:
    ids = [run.id for run in runs]
    return ", ".join(ids[:most]) + (", …" if len(ids) > most else "")

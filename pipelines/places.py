"""Where a run's files lie: made absolute, refused where they would be lost, and each place one config's own."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines import outcome
from pipelines.errors import Misuse, first_line
from pipelines.redact import redact, redact_text
from pipelines.storage import files, write
from pipelines.tracking import params, server

RECORD = "config.json"
"""In the run's folder of ``storage``: whose checkpoints these are."""

_JOB_COPY = "/working_dir_files/_ray_pkg_"
SHOWN = 5


def located(config: dict[str, Any]) -> dict[str, Any]:
    """Every local path absolute: workers run in folders, and on nodes, of their own."""
    config = dict(json.loads(json.dumps(config)))

    def absolute(path: str) -> str:
        return path if "://" in path else str(Path(path).expanduser().absolute())

    config["storage"] = absolute(config["storage"])
    config["tracking"]["uri"] = server.absolute(config["tracking"]["uri"])
    if config["model"]["weights"] not in (None, "timm"):
        config["model"]["weights"] = absolute(config["model"]["weights"])
    path = config["data"].get("path")
    if path:
        config["data"] = _moved(config["data"], path, absolute(path))
    return config


def _moved(node: Any, old: str, new: str) -> Any:
    """``node`` with every ``path`` below it that is ``old`` at ``new``."""
    if not isinstance(node, dict):
        return node
    return {key: new if key == "path" and value == old else _moved(value, old, new) for key, value in node.items()}


def check(config: Mapping[str, Any]) -> None:
    """Refuse a place that cannot be written, and one in the copy of the working directory that Ray makes for a job,
    and deletes after it."""
    file = {"json": str(Path(config["json"]).absolute())} if config["json"] else {}
    for name, path in {**_local(config), **file}.items():
        if _JOB_COPY in path:
            raise Misuse(
                f"{name}={path} lies in this job's own copy of the working directory, which Ray deletes after the job; "
                f"give {_SHARED[name]}, or an absolute path"
            )
    if "://" not in config["storage"]:
        _check_writable(Path(config["storage"]))
    outcome.check(config["json"])


def _check_writable(storage: Path) -> None:
    there = next(place for place in (storage, *storage.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "is not writable" if there.is_dir() else "is a file"
        raise Misuse(f"storage={storage}: {there} {reason}; give a folder that can be written, or s3://bucket/prefix")


def doubts(config: Mapping[str, Any], nodes: int) -> Iterator[str]:
    """What is known to be wrong with local places as soon as there is more than one node."""
    for name, path in _local(config).items():
        if nodes > 1:
            yield (
                f"{name}={path} is a place on this machine, and the cluster has {nodes} nodes: unless all of them "
                f"share it, checkpoints or metrics are lost; use {_SHARED[name]}"
            )


_SHARED = {
    "storage": "s3://bucket/prefix",
    "tracking.uri": "a tracking server (http://host:port)",
    "json": "a place outside it",
}


def _local(config: Mapping[str, Any]) -> dict[str, str]:
    database = server.database(config["tracking"]["uri"])
    storage = config["storage"]
    return ({} if "://" in storage else {"storage": storage}) | ({"tracking.uri": str(database)} if database else {})


def owner(storage: str, name: str, digest: str, identity: Mapping[str, Any]) -> None:
    """Refuse ``storage/name`` if it belongs to another ``digest`` than this one.

    Errors: ``Misuse``, which says what in ``identity`` differs from what was claimed.
    """
    place = at(storage, name)
    try:
        with files(place).open(f"{place}/{RECORD}") as file:
            record = json.loads(file.read())
        if record["digest"] == digest:
            return
        difference = _difference(identity, record["config"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise Misuse(
            f"storage={storage}: {redact_text(place)}/{RECORD} is not whole ({first_line(error)}); "
            "remove it, and the same command goes on"
        ) from error
    raise Misuse(
        f"name={name}: {redact_text(place)} holds a run of another config ({difference}); give another name or storage"
    )


def claim(storage: str, name: str, digest: str, identity: Mapping[str, Any]) -> None:
    """Say in ``storage/name`` whose it is."""
    record = json.dumps({"digest": digest, "config": redact(identity)}, indent=2) + "\n"
    write(f"{at(storage, name)}/{RECORD}", record.encode())


def at(storage: str, name: str) -> str:
    return f"{storage.rstrip('/')}/{name}"


def _difference(identity: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    here, there = params.flatten(identity), params.flatten(other)
    names = sorted(n for n in here | there if here.get(n) != there.get(n))
    shown = [f"{n}={there.get(n, 'not set')} there, {here.get(n, 'not set')} here" for n in names[:SHOWN]]
    return "; ".join(shown) or "on other data"

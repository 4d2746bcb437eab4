"""Where a run's files lie: made absolute, refused where they would be lost, and each place one config's own."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.compose import INCIDENTAL, digest
from pipelines.errors import Misuse
from pipelines.redact import redact, redact_text
from pipelines.storage import files, upload
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
        config["data"] = _replaced(config["data"], path, absolute(path))
    return config


def _replaced(node: Any, old: str, new: str) -> Any:
    if isinstance(node, dict):
        return {key: _replaced(value, old, new) for key, value in node.items()}
    return new if node == old else node


def check(config: Mapping[str, Any]) -> None:
    """Refuse a place in the copy of the working directory that Ray makes for a job, and deletes after it."""
    for name, path in _local(config).items():
        if _JOB_COPY in path:
            raise Misuse(
                f"{name}={path} lies in this job's own copy of the working directory, which Ray deletes after the job; "
                f"give {_SHARED[name]}, or an absolute path"
            )


def doubts(config: Mapping[str, Any], nodes: int) -> Iterator[str]:
    """What is known to be wrong with local places as soon as there is more than one node."""
    for name, path in _local(config).items():
        if nodes > 1:
            yield (
                f"{name}={path} is a place on this machine, and the cluster has {nodes} nodes: unless all of them "
                f"share it, checkpoints or metrics are lost; use {_SHARED[name]}"
            )


_SHARED = {"storage": "s3://bucket/prefix", "tracking.uri": "a tracking server (http://host:port)"}


def _local(config: Mapping[str, Any]) -> dict[str, str]:
    database = server.database(config["tracking"]["uri"])
    storage = config["storage"]
    return ({} if "://" in storage else {"storage": storage}) | ({"tracking.uri": str(database)} if database else {})


def claim(config: Mapping[str, Any], name: str, data_digest: str) -> str:
    """The digest that names config and data, after ``storage/name`` was found to be free or this run's own.

    Errors: ``Misuse`` if a run of another config, or on other data, has its checkpoints there.
    """
    place, ours = f"{config['storage'].rstrip('/')}/{name}", f"{digest(config)}-{data_digest}"
    try:
        with files(place).open(f"{place}/{RECORD}") as file:
            record = json.loads(file.read())
    except FileNotFoundError:
        record = {"digest": ours, "config": redact({k: v for k, v in config.items() if k not in INCIDENTAL})}
        with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
            (Path(folder) / RECORD).write_text(json.dumps(record, indent=2) + "\n")
            upload(Path(folder), place)
    if record["digest"] != ours:
        raise Misuse(
            f"name={name}: {redact_text(place)} holds a run of another config "
            f"({_difference(config, record['config'])}); give another name or storage"
        )
    return ours


def _difference(config: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    here, there = params.flatten({k: v for k, v in config.items() if k not in INCIDENTAL}), params.flatten(other)
    names = sorted(n for n in here | there if here.get(n) != there.get(n))
    shown = [f"{n}={there.get(n, 'not set')} there, {here.get(n, 'not set')} here" for n in names[:SHOWN]]
    return "; ".join(shown) or "on other data"

"""Holdfast's own models: in MLflow, in a folder, in S3.  Rebuilt from safetensors, nothing is unpickled."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from pipelines.errors import Failure, Misuse, first_line
from pipelines.redact import redact_text
from pipelines.sources.candidate import Found
from pipelines.storage import download, files
from pipelines.tracking import export, registry
from pipelines.tracking.origin import origin


def tracked(source: str, tracking_uri: str, setting: str) -> Found:
    """A registered version, by number or alias, or the model of a run."""
    facts = origin(source, tracking_uri, setting.partition("=")[0])
    with _told(setting, "a model of somebody else's is judged by package.module:function"):
        model = registry.load(facts.address, tracking_uri)
    note = f"{source} is version {facts.version[1]} of {facts.version[0]}" if facts.version and "@" in source else ""
    return Found(model, facts.title, source, setting, facts, (note,) if note else ())


def is_folder(source: str) -> bool:
    return Path(source).expanduser().is_dir()


def folder(source: str, setting: str) -> Found:
    """What ``trainers.models.save`` wrote, or an MLflow model that holds it."""
    remedy = f"give the folder that holds {' and '.join(export.FILES)}, as trainers.models.save writes them"
    with _told(setting, remedy):
        model = _fetched(source) if "://" in source else registry.load(str(Path(source).expanduser()))
    return Found(model, source.rstrip("/").rpartition("/")[2], source, setting)


def _fetched(source: str) -> nn.Module:
    """Only the files of a model are copied: a prefix may hold a whole training."""
    store, place = files(source), source.rstrip("/")
    for inside in (f"{place}/{export.EXTRA}", place):
        if all(store.exists(f"{inside}/{file}") for file in export.FILES):
            with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
                for file in export.FILES:
                    download(f"{inside}/{file}", Path(folder))
                return registry.load(folder)
    raise Failure("there is no model in it")


@contextmanager
def _told(setting: str, remedy: str) -> Iterator[None]:
    """What goes wrong inside, as one message with the setting and the remedy."""
    try:
        yield
    except (Misuse, Failure, ValueError, OSError) as error:
        raise Misuse(f"{setting} cannot be loaded: {redact_text(first_line(error))}; {remedy}") from error

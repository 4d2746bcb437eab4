"""Registered versions and the aliases that point at them."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import Failure, Misuse, first_line
from pipelines.redact import redact_text
from pipelines.tracking import export, server
from pipelines.tracking.registry import ARTEFACT

COPIED = "holdfast.copied_from"
ROLLED_BACK = "rolled_back"
"""The tag of a version that was taken back: why."""
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"


@dataclass(frozen=True)
class Version:
    """``made``, ``changed``: milliseconds since 1970, by the server's clock."""

    name: str
    number: int
    made: int
    changed: int
    run_id: str | None
    source: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    description: str


def names(uri: str) -> list[str]:
    with told(uri, "list the registered models"):
        client, found, token = server.client(uri), [], None
        while True:
            page = client.search_registered_models(max_results=100, page_token=token)
            found += [model.name for model in page]
            token = page.token
            if not token:
                return sorted(found)


def listed(uri: str, name: str) -> list[Version]:
    """Every version of ``name``, the oldest first.  Errors: ``Misuse`` if there is no such model."""
    where = aliases(uri, name)
    with told(uri, f"list the versions of {name}"):
        client, found, token = server.client(uri), [], None
        quoted = name.replace("'", "\\'")
        while True:
            page = client.search_model_versions(f"name = '{quoted}'", max_results=200, page_token=token)
            found += [_version(each, where) for each in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda version: version.number)


def find(uri: str, name: str, number: int) -> Version:
    """Errors: ``Misuse`` if there is no such version."""
    from mlflow.exceptions import MlflowException

    where = aliases(uri, name)
    with told(uri, f"find version {number} of {name}"):
        try:
            return _version(server.client(uri).get_model_version(name, str(number)), where)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    there = ", ".join(str(version.number) for version in listed(uri, name)) or "none"
    raise Misuse(f"version={number}: {name} has no such version; it has {there}")


def aliases(uri: str, name: str) -> dict[str, int]:
    """Which version each alias of ``name`` points at.  Errors: ``Misuse`` if there is no such model."""
    found = _aliases(uri, name)
    if found is not None:
        return found
    raise Misuse(
        f"name={name} is no registered model at tracking.uri={redact_text(uri)}; registered are "
        f"{', '.join(names(uri)) or 'none'}: train with register_as={name}, or correct the one or the other"
    )


def _aliases(uri: str, name: str) -> dict[str, int] | None:
    """None if there is no such model."""
    from mlflow.exceptions import MlflowException

    with told(uri, f"find {name}"):
        try:
            found = server.client(uri).get_registered_model(name)
            return {alias: int(number) for alias, number in found.aliases.items()}
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None


def exists(uri: str, name: str) -> bool:
    return _aliases(uri, name) is not None


def point(uri: str, name: str, alias: str, number: int | None) -> None:
    """``alias`` at version ``number``; None takes it away."""
    with told(uri, f"move alias {alias} of {name}"):
        client = server.client(uri)
        if number is not None:
            client.set_registered_model_alias(name, alias, str(number))
        elif alias in client.get_registered_model(name).aliases:
            client.delete_registered_model_alias(name, alias)


def tag(uri: str, name: str, number: int, tags: Mapping[str, str]) -> None:
    with told(uri, f"tag version {number} of {name}"):
        client = server.client(uri)
        for key, value in tags.items():
            client.set_model_version_tag(name, str(number), key, redact_text(value)[:5000])


def copy(uri: str, version: Version, to: str, tags: Mapping[str, str]) -> int:
    """``version`` as the next one of the registered model ``to``, with its tags and ``tags``; one that is there already
    is taken.  Its number."""
    source = f"models:/{version.name}/{version.number}"
    every = {**{key: tag for key, tag in version.tags.items() if not key.startswith("gate.")}, **tags}
    for there in listed(uri, to) if exists(uri, to) else []:
        same = there.tags.get(ARTEFACT) == version.tags.get(ARTEFACT)  # numbers begin anew where a model was deleted
        if there.tags.get(COPIED) == source and same:
            return there.number
    with told(uri, f"copy {source} to {to}"), export.quiet(), server.as_default(uri), _silent():
        made = server.client(uri).copy_model_version(source, to)
    tag(uri, to, int(made.version), {**every, COPIED: source})
    return int(made.version)


def served(uri: str, target: str, name: str, number: int) -> Version | None:
    """Version ``number`` of ``name`` as ``target`` has it: itself, or the last copy of it."""
    source = f"models:/{name}/{number}"
    for there in reversed(listed(uri, target)) if exists(uri, target) else []:
        if source in (f"models:/{target}/{there.number}", there.tags.get(COPIED)):
            return there
    return None


def fetch(uri: str, name: str, number: int, to: Path) -> Path:
    """Every file of the version, in a folder below ``to``.  Errors: ``Misuse`` for a version whose files are gone;
    ``Failure`` for storage that does not answer."""
    import mlflow.artifacts

    find(uri, name, number)
    source = f"models:/{name}/{number}"
    try:
        with export.quiet(), server.as_default(uri):
            place = mlflow.artifacts.download_artifacts(source, dst_path=str(to), tracking_uri=uri, registry_uri=uri)
    except FileNotFoundError as error:
        raise Misuse(f"{source} has no artefact any more ({redact_text(first_line(error))}): {_GONE}") from error
    except Exception as error:
        raise Failure(
            f"the artefact of {source} could not be fetched ({redact_text(first_line(error))}); see to its storage and "
            f"the credentials, and run the same command again. If its files are gone: {_GONE}"
        ) from error
    return Path(place)


_GONE = "give them back, or train it under another name="


@contextlib.contextmanager
def told(uri: str, what: str) -> Iterator[None]:
    """Requests to the registry, of half a minute each at most; one that refuses or stays away, as one message."""
    try:
        with server.bounded():
            yield
    except (Misuse, Failure):
        raise
    except Exception as error:
        raise Failure(
            f"tracking.uri={redact_text(uri)} did not {what} ({redact_text(first_line(error))}); see to the server and "
            "the credentials, and run the same command again: it finishes or undoes what was begun"
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """MLflow's ``copy_model_version`` prints."""
    import io

    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _version(found: Any, where: Mapping[str, int]) -> Version:
    number = int(found.version)
    return Version(
        name=found.name,
        number=number,
        made=int(found.creation_timestamp),
        changed=int(found.last_updated_timestamp or found.creation_timestamp),
        run_id=found.run_id or None,
        source=str(found.source),
        tags=dict(found.tags),
        aliases=tuple(sorted(alias for alias, at in where.items() if at == number)),
        description=found.description or "",
    )

"""Who moved which alias when and why: a record in the registry itself, which is also what keeps two movers apart.

The records of model NAME are the versions of the registered model ``NAME.promotions``.  The registry numbers versions,
each number once, so that a number is a place in a queue: who holds the lowest one still open may move aliases.  A
record is open for ``LIFE`` seconds by the registry's clock; whoever comes next then finishes or undoes it.
"""

import getpass
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import Failure, Misuse, first_line
from pipelines.tracking import export, server, versions

SUFFIX = ".promotions"
LIFE = 120.0
"""Seconds that a record stays open: a move takes a few requests."""
STEP = 60.0
"""Seconds that one request of a move may take, retries and all: none is begun later than this before ``LIFE`` ends."""
OPEN, DONE, UNDONE, REFUSED, LOST, NOTED = "open", "done", "undone", "refused", "lost", "noted"
_TRIES = 20


@dataclass(frozen=True)
class Record:
    """``number``: its place, counted by the registry.  ``at``: seconds since 1970, the registry's clock.  ``by``: who,
    and ``process``: which process.  ``what``: promote, rollback or ``by hand``; ``state``: what came of it.  ``facts``:
    of the decision, plain."""

    number: int
    at: float
    by: str
    process: str
    what: str
    state: str
    facts: Mapping[str, Any]
    text: str


def is_record(name: str) -> bool:
    """Whether a registered model holds records, not a model."""
    return name.endswith(SUFFIX)


def records(uri: str, name: str) -> list[Record]:
    """Every record of ``name``, the oldest first."""
    place = name + SUFFIX
    found = versions.listed(uri, place) if versions.exists(uri, place) else []
    return [_record(version) for version in found]


def append(uri: str, name: str, about: str, what: str, state: str, facts: Mapping[str, Any], text: str = "") -> Record:
    """A new record, which concerns the version ``about`` (``models:/name/3``); ``text``: Markdown for its page."""
    place = name + SUFFIX
    tags = {"what": what, "state": state, "by": who(), "process": _process(), "facts": json.dumps(facts)}
    tags = {f"holdfast.{key}": value for key, value in tags.items()}
    with versions.told(uri, f"take a record of {name}"), server.as_default(uri), export.quiet():
        client = server.client(uri)
        _ensure(client, place, name)
        for attempt in range(_TRIES):
            try:
                made = client.create_model_version(place, about, tags=tags, description=text)
                break
            except Exception as error:  # MLflow gives up after three others were quicker
                if ("Giving up" not in str(error) and "locked" not in str(error)) or attempt == _TRIES - 1:
                    raise
                time.sleep(0.05 * (attempt + 1))
    return _record(versions.find(uri, place, int(made.version)))


def settle(uri: str, name: str, record: Record, state: str, facts: Mapping[str, Any] | None = None) -> None:
    """What came of an open record."""
    tags = {"holdfast.state": state}
    if facts is not None:
        tags["holdfast.facts"] = json.dumps({**record.facts, **facts})
    versions.tag(uri, name + SUFFIX, record.number, tags)


class Turn:
    """An open record whose turn it is.  ``live`` before every write: a process that slept past the end of its record
    must not write any more."""

    def __init__(self, record: Record, born: float) -> None:
        self.record, self._born = record, born

    def live(self) -> None:
        """Errors: ``Failure`` once the record is too old to begin another request."""
        if time.monotonic() - self._born > LIFE - STEP:
            raise Failure(
                f"record {self.record.number}: the registry is too slow, this move has taken {LIFE - STEP:g} s; the "
                "next command finishes or undoes it: run the same command again"
            )


def turn(
    uri: str,
    name: str,
    about: str,
    what: str,
    facts: Mapping[str, Any],
    text: str,
    recover: Callable[[Record], str],
) -> Turn:
    """Open a record and wait until every earlier one is settled; one that is past its ``LIFE`` is given to ``recover``,
    which finishes or undoes it and says what came of it, by the one whose turn is next.

    A record that waited for long has little of its ``LIFE`` left: it is given up for a new one.
    """
    while True:
        born = time.monotonic()
        mine = append(uri, name, about, what, OPEN, facts, text)
        while earlier := [r for r in records(uri, name) if r.number < mine.number and r.state == OPEN]:
            now = mine.at + time.monotonic() - born
            if all(now - r.at > LIFE or _dead(r) for r in earlier):
                for record in earlier:
                    settle(uri, name, record, recover(record))
                break
            time.sleep(0.2)
        if time.monotonic() - born < (LIFE - STEP) / 2:
            return Turn(mine, born)
        settle(uri, name, mine, UNDONE)


def who() -> str:
    """``user@host``; in CI, the job's own name for who started it."""
    try:
        user = os.environ.get("GITHUB_ACTOR") or os.environ.get("GITLAB_USER_LOGIN") or getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = "unknown"
    return f"{user}@{platform.node()}"


def _process(pid: int | None = None) -> str:
    """Process, when it began, and what its number means: containers of one machine number theirs apart."""
    import psutil

    process = psutil.Process(pid)
    return f"{process.pid} {process.create_time():.2f} {_numbering()}"


def _numbering() -> str:
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return platform.node()


def _dead(record: Record) -> bool:
    """Whether the process that opened it, on this machine, is gone: no need to wait for the end of its time."""
    import psutil

    pid, _, rest = record.process.partition(" ")
    if not pid.isdigit() or rest.partition(" ")[2] != _numbering():
        return False
    try:
        return _process(int(pid)) != record.process
    except psutil.Error:
        return True


def _ensure(client: Any, place: str, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        text = f"Who moved the aliases of {name}, when and why. Its versions are records: keep them all."
        client.create_registered_model(place, description=text)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _record(version: versions.Version) -> Record:
    tags = version.tags
    try:
        facts = json.loads(tags["holdfast.facts"])
        by, process, what, state = (tags[f"holdfast.{key}"] for key in ("by", "process", "what", "state"))
    except (KeyError, ValueError) as error:
        raise Misuse(
            f"{version.name} version {version.number} is no record of holdfast ({first_line(error)}): somebody made or "
            "changed it by hand; delete that version"
        ) from error
    return Record(version.number, version.made / 1000, by, process, what, state, facts, version.description)

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
from pipelines.redact import redact, redact_text
from pipelines.tracking import export, server, versions
from pipelines.tracking.registry import RECORDS

LIFE = 120.0
"""Seconds that a record stays open: a move takes a few requests."""
STEP = 60.0
"""Seconds that one request of a move may take, retries and all: none is begun later than this before ``LIFE`` ends."""
OPEN, MOVING = "open", "moving"
"""Waiting for its turn, and writing."""
DONE, UNDONE, REFUSED, LOST, NOTED, TIDIED = "done", "undone", "refused", "lost", "noted", "tidied"
LONGEST = 4900
"""Characters of a record's page: MLflow's databases hold 5,000."""
_TRIES = 20


@dataclass(frozen=True)
class Record:
    """``number``: its place, counted by the registry.  ``at``: seconds since 1970, the registry's clock.  ``by``: who,
    and ``process``: which process.  ``what``: promote, rollback, tidy or ``by hand``; ``state``: what came of it.
    ``facts``: of the decision, plain."""

    number: int
    at: float
    by: str
    process: str
    what: str
    state: str
    facts: Mapping[str, Any]
    text: str

    @property
    def unsettled(self) -> bool:
        return self.state in (OPEN, MOVING)


def is_record(name: str) -> bool:
    """Whether a registered model holds records, not a model."""
    return name.endswith(RECORDS)


def records(uri: str, name: str) -> list[Record]:
    """Every record of ``name``, the oldest first."""
    place = name + RECORDS
    return [_record(version) for version in versions.listed(uri, place)] if versions.exists(uri, place) else []


def append(uri: str, name: str, about: str, what: str, state: str, facts: Mapping[str, Any], text: str = "") -> Record:
    """A new record, which concerns the version ``about`` (``models:/name/3``); ``text``: Markdown for its page."""
    place = name + RECORDS
    said = json.dumps(redact(facts))
    tags = {"what": what, "state": state, "by": who(), "process": _process(os.getpid()), "facts": said}
    tags = {f"holdfast.{key}": value for key, value in tags.items()}
    page = redact_text(text)[:LONGEST]
    with versions.told(uri, f"take a record of {name}"), server.as_default(uri), export.quiet():
        client = server.client(uri)
        _ensure(client, place, name)
        for attempt in range(_TRIES):
            try:
                made = client.create_model_version(place, about, tags=tags, description=page)
                break
            except Exception as error:  # MLflow gives up after three others were quicker
                busy = "Giving up" in str(error) or "locked" in str(error)
                if not busy or attempt == _TRIES - 1:
                    raise
                time.sleep(0.05 * (attempt + 1))
    return _record(versions.find(uri, place, int(made.version)))


def settle(uri: str, name: str, record: Record, state: str, facts: Mapping[str, Any] | None = None) -> None:
    """What came of a record; ``facts`` are added to its own."""
    if facts:
        said = json.dumps(redact({**record.facts, **facts}))
        versions.tag(uri, name + RECORDS, record.number, {"holdfast.facts": said})
    versions.tag(uri, name + RECORDS, record.number, {"holdfast.state": state})


class Turn:
    """A record whose turn it is."""

    def __init__(self, uri: str, name: str, record: Record, born: float) -> None:
        self.record, self._uri, self._name, self._born = record, uri, name, born

    def live(self) -> None:
        """To be asked before every write: a process that slept past the end of its record must not write any more.

        Errors: ``Failure`` once it is too late to begin another request, or somebody else settled the record.
        """
        mine = _record(versions.find(self._uri, self._name + RECORDS, self.record.number))
        if _now() - self._born > LIFE - STEP or not mine.unsettled:
            raise Failure(
                f"record {self.record.number}: this move has taken more than {LIFE - STEP:g} s, or another process "
                "ended it; the next command finishes or undoes it: run the same command again"
            )


Recover = Callable[[Record, Callable[[], None]], str]
"""Finishes or undoes a record that was left, asking ``live`` before every write; what came of it."""


def turn(
    uri: str, name: str, about: str, what: str, facts: Mapping[str, Any], text: str, recover: Recover
) -> tuple[Turn, list[Record]]:
    """Open a record and wait until every earlier one is settled; one whose process is dead, or that is past its
    ``LIFE``, is recovered by the one whose turn is next.  The turn, and what was recovered, as it was.

    A record that waited for long has little of its ``LIFE`` left: it is given up for a new one.
    """
    while True:
        born = _now()
        mine = append(uri, name, about, what, OPEN, facts, text)
        seen, recovered = _now(), []
        here = Turn(uri, name, mine, born)
        while earlier := [r for r in records(uri, name) if r.number < mine.number and r.unsettled]:
            now = mine.at + _now() - seen
            if all(now - r.at > LIFE or _dead(r) for r in earlier):
                if _now() - born < (LIFE - STEP) / 2:
                    for record in earlier:
                        settle(uri, name, record, recover(record, here.live))
                    recovered = earlier
                break
            time.sleep(0.2)
        if _now() - born < (LIFE - STEP) / 2:
            return here, recovered
        settle(uri, name, mine, UNDONE)


def who() -> str:
    """``user@host``; in CI, the job's own name for who started it."""
    try:
        user = os.environ.get("GITHUB_ACTOR") or os.environ.get("GITLAB_USER_LOGIN") or getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = "unknown"
    return f"{user}@{platform.node()}"


def _now() -> float:
    """Seconds that go on while the machine sleeps, where the system counts those."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _process(pid: int) -> str:
    """Process, when it began, and what its number means: containers of one machine number theirs apart.  Empty where
    that cannot be told: not on Linux."""
    try:
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # in ticks since the machine began
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{pid} {began} {boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _dead(record: Record) -> bool:
    """Whether the process that opened it, on this machine, is gone, or is this one, which does one thing at a time: no
    need to wait for the end of its time."""
    mine = _process(os.getpid())
    if not mine or not record.process or record.process.split()[2] != mine.split()[2]:
        return False
    return record.process == mine or _process(int(record.process.split()[0])) != record.process


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
            f"{version.name} version {version.number} is no record of holdfast, or was changed by hand "
            f"({first_line(error)}): give its tags back, or, if somebody else made it, delete that version"
        ) from error
    return Record(version.number, version.made / 1000, by, process, what, state, facts, version.description)

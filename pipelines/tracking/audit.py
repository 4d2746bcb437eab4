"""Who moved which alias when and why: a record in the registry itself, which is also what keeps two movers apart.

The records of model NAME are the versions of the registered model ``NAME.promotions`` (``lease`` keeps another kind).
The registry numbers versions, each number once, so that a number is a place in a queue: who holds the lowest one still
open may move aliases.  A record is open for ``LIFE`` seconds by the registry's clock; whoever comes next then finishes
or undoes it.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Failure, Misuse, first_line
from pipelines.redact import redact, redact_text
from pipelines.tracking import export, holder, server, versions
from pipelines.tracking.registry import RECORDS, RETRAININGS

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
    """``number``: its place, counted by the registry.  ``at``, ``changed``: seconds since 1970, the registry's clock.
    ``by``: who, and ``process``: which process.  ``what``: promote, rollback, tidy, ``by hand`` or retrain; ``state``:
    what came of it.  ``facts``: of the decision, plain."""

    number: int
    at: float
    changed: float
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
    return name.endswith((RECORDS, RETRAININGS))


def records(uri: str, name: str, kind: str = RECORDS) -> list[Record]:
    """Every record of ``name``, the oldest first."""
    place = name + kind
    return [_record(version) for version in versions.listed(uri, place)] if versions.exists(uri, place) else []


def append(
    uri: str,
    name: str,
    about: str,
    what: str,
    state: str,
    facts: Mapping[str, Any],
    text: str = "",
    kind: str = RECORDS,
) -> Record:
    """A new record, which concerns the version ``about`` (``models:/name/3``); ``text``: Markdown for its page."""
    place = name + kind
    said = json.dumps(redact(facts))
    tags = {"what": what, "state": state, "by": holder.who(), "process": holder.own(), "facts": said}
    tags = {f"holdfast.{key}": value for key, value in tags.items()}
    page = redact_text(text)[:LONGEST]
    with versions.told(uri, f"take a record of {name}"), server.as_default(uri), export.quiet():
        client = server.client(uri)
        _ensure(client, place, _PAGES[kind].format(name=name))
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


def settle(
    uri: str, name: str, record: Record, state: str | None, facts: Mapping[str, Any] | None = None, kind: str = RECORDS
) -> None:
    """What came of a record, None for not yet; ``facts`` are added to its own."""
    if facts:
        said = json.dumps(redact({**record.facts, **facts}))
        versions.tag(uri, name + kind, record.number, {"holdfast.facts": said})
    if state:
        versions.tag(uri, name + kind, record.number, {"holdfast.state": state})


def find(uri: str, name: str, number: int, kind: str = RECORDS) -> Record:
    return _record(versions.find(uri, name + kind, number))


class Turn:
    """A record whose turn it is."""

    def __init__(self, uri: str, name: str, record: Record, born: float) -> None:
        self.record, self._uri, self._name, self._born = record, uri, name, born

    def live(self) -> None:
        """To be asked before every write: a process that slept past the end of its record must not write any more.

        Errors: ``Failure`` once it is too late to begin another request, or somebody else settled the record.
        """
        mine = find(self._uri, self._name, self.record.number)
        if holder.now() - self._born > LIFE - STEP or not mine.unsettled:
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
        born = holder.now()
        mine = append(uri, name, about, what, OPEN, facts, text)
        seen, recovered = holder.now(), []
        here = Turn(uri, name, mine, born)
        while earlier := [r for r in records(uri, name) if r.number < mine.number and r.unsettled]:
            now = mine.at + holder.now() - seen
            if all(now - r.at > LIFE or holder.gone(r.process) for r in earlier):
                if holder.now() - born < (LIFE - STEP) / 2:
                    for record in earlier:
                        settle(uri, name, record, recover(record, here.live))
                    recovered = earlier
                break
            time.sleep(0.2)
        if holder.now() - born < (LIFE - STEP) / 2:
            return here, recovered
        settle(uri, name, mine, UNDONE)


_PAGES = {
    RECORDS: "Who moved the aliases of {name}, when and why. Its versions are records: keep them all.",
    RETRAININGS: "What was retrained for {name}, when and why. Its versions are records: keep them all.",
}


def _ensure(client: Any, place: str, text: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
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
    at, changed = version.made / 1000, version.changed / 1000
    return Record(version.number, at, changed, by, process, what, state, facts, version.description)

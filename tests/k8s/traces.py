"""Lives of RayJobs as clients of a real operator saw them.

The recordings lie in ``shared/data/rayjob-traces`` beside the repository; its README says how they were made.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.k8s.plane import Object

RECORDINGS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "rayjob-traces"
MISSING = f"no {RECORDINGS}: the recorded lives of RayJobs are not part of this repository"
STAMP = re.compile(r"\d{4}-\d\d-\d\d([T ])(\d\d:\d\d:\d\d)(\.\d+)?(?=Z| \+0000)")


@dataclass(frozen=True)
class Row:
    t: float
    type: str
    kind: str
    name: str
    object: Object


@dataclass(frozen=True)
class Trace:
    """One recording, or the ``case`` of one that has many RayJobs."""

    scenario: str
    case: str = ""

    @cached_property
    def rows(self) -> list[Row]:
        lines = (RECORDINGS / f"{self.scenario}.jsonl").read_text().splitlines()
        rows = [Row(**json.loads(line)) for line in lines]
        return [row for row in rows if not self.case or self._about(row) == self.case]

    @staticmethod
    def _about(row: Row) -> str:
        if row.kind in ("Action", "Event"):
            return row.object.get("involvedObject", row.object).get("name", "")
        return row.name

    @cached_property
    def rayjob(self) -> str:
        """The recorded RayJob's name."""
        names = {row.name for row in self.rows if row.kind == "RayJob"}
        if len(names) != 1:
            raise ValueError(f"{self.scenario} {self.case}: {len(names)} RayJobs; give case, one of {sorted(names)}")
        return names.pop()

    @cached_property
    def spec(self) -> Object:
        return next(row.object["spec"] for row in self.rows if row.kind == "RayJob")

    @cached_property
    def statuses(self) -> list[Object]:
        return [row.object["status"] for row in self.rows if row.kind == "RayJob"]


def course(statuses: list[Object]) -> list[tuple[str, str, str]]:
    """The distinct (jobDeploymentStatus, jobStatus, reason), in order; an empty text is an absent field."""
    found: list[tuple[str, str, str]] = []
    for status in statuses:
        here = tuple(status.get(key, "") for key in ("jobDeploymentStatus", "jobStatus", "reason"))
        if not found or found[-1] != here:
            found.append(here)
    return found


def recordings() -> list[str]:
    return sorted(path.stem for path in RECORDINGS.glob("*.jsonl"))


def lives() -> list[Trace]:
    """Every recorded life of a RayJob, each of a recording that has many; one of a CronJob alone has none."""
    found: list[Trace] = []
    for scenario in recordings():
        names = sorted({row.name for row in Trace(scenario).rows if row.kind == "RayJob"})
        found += [Trace(scenario)] if len(names) == 1 else [Trace(scenario, name) for name in names]
    return found


@dataclass
class Names:
    """A recorded value with the names of a RayJob of ours, of its containers, its uids, and its times."""

    trace: Trace
    namespace: str
    rayjob: str
    shift: timedelta = timedelta()
    uids: dict[str, str] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self(each) for each in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        name, here = re.escape(self.trace.rayjob), self.namespace
        if text == self.trace.rayjob:
            return self.rayjob
        text = re.sub(rf"\btrace-{re.escape(self.trace.scenario)}(?=[/.]|$)", here, self.uids.get(text, text))
        # A bare name such as `stopped` is a word of many messages: only what can be nothing but a name is one.
        text = re.sub(rf"(?<![\w-]){name}(?=-[a-z0-9]{{5}}(?![a-z0-9])|\.[0-9a-f]{{16}}$)", self.rayjob, text)
        text = re.sub(rf"(?<={re.escape(here)}/){name}(?![\w-])", self.rayjob, text)
        for theirs, our in self.containers.items():
            text = re.sub(rf"(?<![\w-]){theirs}(?![\w-])", our, text)
        return STAMP.sub(self._moved, text)

    def _moved(self, stamp: re.Match[str]) -> str:
        between, fraction = stamp[1], stamp[3] or ""
        moved = datetime.fromisoformat(stamp[0].removesuffix(fraction)) + self.shift
        return f"{moved:%Y-%m-%d}{between}{moved:%H:%M:%S}{fraction}"

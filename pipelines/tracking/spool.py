"""Points on disk until the server has them: what a killed process had in flight is found by the next one."""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipelines.tracking.points import Point

_log = logging.getLogger(__name__)


class Spool:
    """A file of one JSON list a line, in a folder that is made for this user alone.

    A disk that fails is reported once: the training goes on without a spool.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._healthy = path, True
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> list[Point]:
        """What is there; a last line cut off by a kill is not."""
        points = []
        try:
            lines = self.path.read_text().splitlines()
        except OSError:
            return []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                points.append(point(json.loads(line)))
        return points

    def append(self, points: Iterable[Point]) -> None:
        self._write(self.path, "a", points)

    def rewrite(self, points: Iterable[Point]) -> None:
        """Hold these points only; a kill in between leaves the old ones."""
        new = self.path.with_suffix(".new")
        if self._write(new, "w", points):
            with contextlib.suppress(OSError):
                os.replace(new, self.path)

    def clear(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _write(self, path: Path, mode: str, points: Iterable[Point]) -> bool:
        try:
            with path.open(mode) as file:
                file.write("".join(json.dumps(p) + "\n" for p in points))
        except OSError as error:
            if self._healthy:
                _log.warning("metrics are kept in memory only: %s cannot be written (%s)", path, error.strerror)
            self._healthy = False
        return self._healthy


def point(saved: Sequence[Any]) -> Point:
    """A point back from its JSON list.  Errors: ``ValueError`` or ``TypeError`` for anything else."""
    key, value, time, step = saved
    return Point(str(key), float(value), int(time), int(step))

"""Metrics off the hot path: logged in microseconds, delivered once, whatever happens to server or process."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.errors import first_line
from pipelines.redact import redact_text
from pipelines.tracking import params
from pipelines.tracking.points import Point, Rejected, Store, store
from pipelines.tracking.spool import Spool, point
from pipelines.tracking.system import Sampler

BATCH = 1000
"""MLflow's limit of metrics a request."""

_log = logging.getLogger(__name__)


class Journal:
    """The metrics of one run, written by one process at a time.

    ``log`` puts points in a queue; a thread writes them to a file in ``spool`` (a folder of this machine), sends them
    in order, and asks again for as long as the server is away.  A point leaves queue and spool when the server has it.

    **Once per (metric, step).**  A metric's steps only grow: a point at or before the last step known of its metric is
    a replay (of the steps since the checkpoint) and is dropped.  Known are the points of ``spool`` and ``pending``
    (what ``pending()`` gave when the checkpoint was made), and, asked at first contact, those the server has.  What
    a killed process had sent but never heard of goes out again with its first time stamp, which the server takes once.

    ``poll``: seconds between deliveries.  ``timeout``: seconds a request may take.  ``system_seconds``: between samples
    of the machine (None for none); the step of a sample is its second since 1970, so it grows over restarts too.
    ``notify``: told once when the server goes away and once when it is back, in a line for a person.
    """

    def __init__(
        self,
        uri: str,
        run_id: str,
        spool: Path | str,
        pending: Iterable[Any] = (),
        *,
        poll: float = 1.0,
        timeout: float = 30.0,
        system_seconds: float | None = 10.0,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.rejected, self._notify = 0, notify
        self._uri, self._run_id, self._poll, self._timeout = uri, run_id, poll, timeout
        self._spool = Spool(Path(spool) / f"{run_id}.jsonl")
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._last: dict[str, float] = {}
        restored = {(p.key, p.step): p for p in [*map(point, pending), *self._spool.read()]}
        self._points = deque(sorted(restored.values(), key=lambda p: (p.time, p.step)))
        for p in self._points:
            self._last[p.key] = max(p.step, self._last.get(p.key, -math.inf))
        self._spool.rewrite(self._points)
        self._spooled = len(self._points)

        self._store: Store | None = None
        self._away_since: float | None = None
        self._every, self._next_sample = system_seconds, 0.0
        self._sampler: Callable[[], dict[str, float]] | None = None
        self._wake, self._stop = threading.Event(), False
        self._thread = threading.Thread(target=self._deliver, name="holdfast-journal", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Queue ``metrics`` at ``step``.  Takes microseconds and never raises; NaN and infinity are fine."""
        now = int(time.time() * 1000)
        values = []
        for name, value in metrics.items():
            try:
                step = int(step)
                values.append((self._names.get(name) or self._name(name), float(value)))
            except Exception as error:
                self._reject(1, f"{name} at step {step}: {error}")
        with self._lock:
            for name, value in values:
                if step > self._last.get(name, -math.inf):
                    self._last[name] = step
                    self._points.append(Point(name, value, now, step))

    def pending(self) -> list[Point]:
        """The points the server is not known to have: for the checkpoint, as they are or through JSON."""
        with self._lock:
            return list(self._points)

    def hurry(self) -> None:
        """Spool and deliver what is queued now, and not at the next poll; returns at once."""
        self._wake.set()

    def flush(self, timeout: float) -> int:
        """Deliver everything now, for at most ``timeout`` seconds; how many points are left."""
        deadline, wake_at = time.monotonic() + timeout, 0.0
        while self._points and self._thread.is_alive() and (now := time.monotonic()) < deadline:
            if now >= wake_at:  # a thread that waits for a server that is away would wait longer than this
                self._wake.set()
                wake_at = now + 1.0
            time.sleep(min(0.02, deadline - now))
        return len(self._points)

    def close(self, timeout: float) -> int:
        """``flush`` and end the thread; points left stay in the spool, where the next journal finds them."""
        deadline = time.monotonic() + timeout
        self._every = None
        left = self.flush(timeout)
        self._stop = True
        self._wake.set()
        self._thread.join(min(5.0, max(0.5, deadline - time.monotonic())))
        self._save()
        return left

    def _name(self, name: str) -> str:
        return self._names.setdefault(name, params.fit_name(str(name)))

    def _deliver(self) -> None:
        pause = self._poll
        while not self._stop:
            self._wake.wait(pause)
            self._wake.clear()
            try:
                self._save()
                self._sample()
                self._send()
                pause = self._poll
            except Exception as error:
                self._report_away(error)
                pause = min(max(2 * pause, 1.0), 15.0)
        self._save()

    def _send(self) -> None:
        if not self._points:
            return
        if self._store is None:
            self._attach()
        while batch := self._batch():
            try:
                self._store.send(batch)  # type: ignore[union-attr]
            except Rejected as error:
                self._reject(len(batch), str(error))
            self._acknowledge(len(batch))
            if self._away_since is not None:
                self._tell(f"tracking is back after {time.monotonic() - self._away_since:.0f} s")
                self._away_since = None

    def _attach(self) -> None:
        """First contact: drop every queued point that the server has."""
        target = store(self._uri, self._run_id, self._timeout)
        there = target.last_steps()
        with self._lock:
            kept = [p for p in self._points if p.step > there.get(p.key, -math.inf)]
            self._points, self._spooled = deque(kept), len(kept)
            for key, step in there.items():
                self._last[key] = max(step, self._last.get(key, -math.inf))
        self._spool.rewrite(kept)
        self._store = target

    def _batch(self) -> list[Point]:
        self._save()
        with self._lock:  # a point logged since then is not on disk yet: it goes with the next batch
            return list(islice(self._points, min(BATCH, self._spooled)))

    def _acknowledge(self, count: int) -> None:
        with self._lock:
            for _ in range(count):
                self._points.popleft()
            self._spooled -= count
            empty = not self._points
        if empty:
            self._spool.clear()

    def _save(self) -> None:
        """Every point is on disk before it is sent: the next process must know what this one may have sent."""
        with self._lock:
            new = list(islice(self._points, self._spooled, None))
        if new:
            self._spool.append(new)
            with self._lock:
                self._spooled += len(new)

    def _sample(self) -> None:
        every, now = self._every, time.monotonic()
        if every is None or now < self._next_sample:
            return
        try:
            if self._sampler is None:
                self._sampler, every = Sampler(), min(every, 1.0)
            else:
                self.log(int(time.time()), self._sampler())
        except Exception as error:  # a machine that cannot be watched trains all the same
            _log.warning("no system metrics: %s", error)
            self._every = None
        self._next_sample = now + every

    def _reject(self, count: int, reason: str) -> None:
        if not self.rejected:
            self._tell(f"{count} metric values were not taken, perhaps more will not be: {redact_text(reason):.200}")
        self.rejected += count

    def _report_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            reason = redact_text(first_line(error))
            away = f"tracking is away since {time.strftime('%H:%M:%S')} ({reason:.200})"
            self._tell(f"{away}; metrics wait in {self._spool.path} and training goes on")

    def _tell(self, text: str) -> None:
        _log.warning("%s", text)
        if self._notify is not None:
            with suppress(Exception):  # who cannot be told stops no delivery
                self._notify(text)

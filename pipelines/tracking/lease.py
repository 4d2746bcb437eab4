"""One retraining of a model at a time, wherever it was started: a record that its holder keeps alive.

The records of model NAME are the versions of the registered model ``NAME.retrainings``, which the registry numbers.
The lowest one that is open and alive holds the lease.  Its holder touches it every ``BEAT`` seconds and stops by itself
when it could not for ``LIFE / 2``; whoever comes later than ``LIFE`` after the last touch, by the registry's clock,
takes over and goes on with what was begun.
"""

import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from pipelines.errors import Failure, Misuse, Refused
from pipelines.redact import redact_text
from pipelines.tracking import audit, holder, server, versions
from pipelines.tracking.audit import Record
from pipelines.tracking.registry import RETRAININGS

LIFE, BEAT = 120.0, 15.0
WAKE = signal.SIGUSR1
"""Interrupts the block of a lost lease, whatever it waits for.  Not SIGINT: a shell has it ignored by what it starts in
the background."""
OPEN, DONE, FAILED, DEAD, LEFT = "open", "done", "failed", "dead", "left"
"""At work; ended; ended by an error, or by the death of its process: to be gone on with; left to another."""
UNFINISHED = (OPEN, FAILED, DEAD)


class Busy(Exception):
    """Another process has the lease: ``record``."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"record {record.number}, by {record.by}")
        self.record = record


def records(uri: str, name: str) -> list[Record]:
    """Every retraining of ``name``, the oldest first, without those that were left to another."""
    return [record for record in audit.records(uri, name, RETRAININGS) if record.state != LEFT]


def unfinished(found: list[Record]) -> Record | None:
    """The last one that came to a plan, if it is to be gone on with."""
    planned = [record for record in found if "plan" in record.facts]
    return planned[-1] if planned and planned[-1].state in UNFINISHED else None


def _interrupt(number: int, frame: FrameType | None) -> None:
    """As SIGINT would: Ray Train has an answer of its own to that, which ends the workers first."""
    answer = signal.getsignal(signal.SIGINT)
    (answer if callable(answer) else signal.default_int_handler)(signal.SIGINT, frame)


class Lease:
    """``with Lease(uri, name) as lease``: the only one, until the block ends; ``earlier``: the records before it.

    The block's end settles it as ``DONE``, as ``Refused`` does, an error as ``FAILED``.  Errors: ``Busy`` on entering,
    and ``Failure`` in place of the ``KeyboardInterrupt`` that ends a block whose lease was lost.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri, self._name, self._lost, self._page = uri, name, False, ""
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._handled: Any = None

    def __enter__(self) -> Self:
        facts: dict[str, Any] = {}
        self.record = audit.append(
            self._uri, self._name, "holdfast:/retraining", "retrain", OPEN, facts, kind=RETRAININGS
        )
        before = [r for r in records(self._uri, self._name) if r.number < self.record.number]
        still = [r for r in before if r.state == OPEN]
        living = [r for r in still if self.record.at - r.changed <= LIFE and not holder.gone(r.process)]
        if living:
            self._settle(self.record, LEFT)
            raise Busy(living[0])
        for record in still:
            self._settle(record, DEAD)
        self.earlier = [r for r in records(self._uri, self._name) if r.number < self.record.number]
        if threading.current_thread() is threading.main_thread():
            self._handled = signal.signal(WAKE, _interrupt)
        self._beating.start()
        return self

    def note(self, facts: Mapping[str, Any], text: str = "") -> None:
        """Adds ``facts`` to the record.  Errors: ``Failure`` if the lease was lost meanwhile."""
        self._live()
        self._settle(self.record, None, facts)
        if text:
            self._touch(text)
        self.record = audit.find(self._uri, self._name, self.record.number, RETRAININGS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._handled is not None:
            signal.signal(WAKE, self._handled)
        if self._lost:
            raise self._gone() from error
        if error is None:
            self._live()
            self._settle(self.record, DONE)
            return
        with suppress(Failure, Misuse):  # the error that ended the block is the one to tell
            self._live()
            self._settle(self.record, DONE if isinstance(error, Refused) else FAILED)

    def _live(self) -> None:
        mine = audit.find(self._uri, self._name, self.record.number, RETRAININGS)
        if self._lost or mine.state != OPEN:
            raise self._gone()

    def _gone(self) -> Failure:
        return Failure(
            f"record {self.record.number} of {self._name}{RETRAININGS}: the registry did not answer for {LIFE / 2:g} "
            "s, or another process took over; run the same command again: it goes on with what was begun"
        )

    def _beat(self) -> None:
        last = holder.now()
        while not self._over.wait(BEAT):
            with suppress(Failure, Misuse):
                self._touch()
                mine = audit.find(self._uri, self._name, self.record.number, RETRAININGS)
                if mine.state == OPEN:
                    last = holder.now()
                    continue
                last = -LIFE
            if holder.now() - last > LIFE / 2 and not self._over.is_set():
                self._lost = True
                signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
                return

    def _touch(self, text: str = "") -> None:
        """MLflow sets a version's time of change only where its description is written: with ``text``, or as it is."""
        with self._writing, versions.told(self._uri, "keep the lease"):
            self._page = redact_text(text)[: audit.LONGEST] or self._page
            client, place = server.client(self._uri), self._name + RETRAININGS
            client.update_model_version(place, str(self.record.number), self._page)

    def _settle(self, record: Record, state: str | None, facts: Mapping[str, Any] | None = None) -> None:
        audit.settle(self._uri, self._name, record, state, facts, RETRAININGS)

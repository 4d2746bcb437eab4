"""Wait for a job's end by asking how it is, and show its log meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol, TypeVar

from k8s import state
from k8s.errors import Misuse, Refusal, Unreachable
from k8s.job import Job
from k8s.state import State

POLL_SECONDS = 2.0
HOPELESS_SECONDS = 120.0
"""How long an image that cannot be pulled, or a container that cannot start, is given: a registry may be away."""
IDLE_SECONDS = 3.0
"""Without a new line, after which a log is read no further once the job has ended."""

Say = Callable[[str], None]
T = TypeVar("T")


class Backend(Protocol):
    """Where jobs run.  ``where``: in words.

    Errors of all: ``Misuse``; ``Unreachable`` for what may be asked again.
    """

    where: str

    def start(self, job: Job) -> bool: ...
    def state(self, name: str) -> State: ...
    def jobs(self) -> list[State]: ...
    def cancel(self, name: str) -> None: ...
    def wait(self, name: str, seconds: float) -> None: ...
    def logs(self, name: str, since: str | None) -> Iterator[tuple[str, str, str]]: ...


def patiently(ask: Callable[[], T], patience: float, say: Say = lambda text: None) -> T:
    """What ``ask`` answers, tried again for ``patience`` seconds.  Errors: the last ``Unreachable``."""
    began, pause, told = time.monotonic(), 0.5, False
    while True:
        try:
            return ask()
        except Unreachable as error:
            if time.monotonic() - began + pause > patience:
                raise
            if not told:
                say(f"{error}; trying again for {patience / 60:g} minutes")
                told = True
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS)


def follow(
    backend: Backend, name: str, say: Say, line: Say, patience: float, hopeless: float = HOPELESS_SECONDS
) -> State:
    """The state of a job that has ended; what it writes goes to ``line``, what becomes of it to ``say``.

    A job that cannot start is cancelled.  Errors: ``Unreachable`` after ``patience`` seconds without an answer.
    """
    log = Log(backend, name, line)
    log.start()
    told, vain, why = ("", ""), None, ""
    try:
        while True:
            found = patiently(lambda: backend.state(name), patience, say)
            if (found.phase, found.message) != told:
                told = found.phase, found.message
                if found.code is None:
                    say(f"{name} {found.told()}")
            if found.code is not None:
                late = found.reason == "PreRunningDeadlineExceeded" and why
                return replace(found, message=f"{found.message} Until then: {why}") if late else found
            why = found.message
            vain = (vain or time.monotonic()) if found.hopeless else None
            if vain is not None and time.monotonic() - vain > hopeless:
                patiently(lambda: backend.cancel(name), patience, say)
                said = f"{found.message}, for {hopeless:g} s: it was cancelled"
                return replace(found, phase=state.ENDED, code=state.FAILURE, message=said)
            backend.wait(name, POLL_SECONDS)
    finally:
        log.finish()


class Log(threading.Thread):
    """Shows each line once, however often the stream is cut and read again."""

    def __init__(self, backend: Backend, name: str, line: Say) -> None:
        super().__init__(daemon=True)
        self.backend, self.job, self.line = backend, name, line
        self.ending = threading.Event()
        self.source, self.at, self.seen = "", "", 0
        self.spoke = time.monotonic()

    def run(self) -> None:
        while True:
            last = self.ending.is_set()
            try:
                self.read()
            except (Unreachable, Refusal, Misuse):
                pass
            except Exception as error:  # a stream may break in any of urllib3's ways
                if not type(error).__module__.startswith(("urllib3", "http")):
                    raise
            if last:
                return
            self.ending.wait(1.0)

    def read(self) -> None:
        """From where the last reading ended: lines of one time (to the nanosecond) are counted."""
        same = 0
        for source, at, text in self.backend.logs(self.job, self.at or None):
            if source != self.source:
                self.source, self.at, self.seen, same = source, "", 0, 0
            if at < self.at:
                continue
            if at > self.at:
                self.at, self.seen, same = at, 0, 0
            same += 1
            if same > self.seen:
                self.seen, self.spoke = same, time.monotonic()
                self.line(text)

    def finish(self) -> None:
        """Read what is left, until nothing more comes."""
        self.ending.set()
        self.spoke = time.monotonic()
        while self.is_alive() and time.monotonic() - self.spoke < IDLE_SECONDS:
            self.join(timeout=0.1)

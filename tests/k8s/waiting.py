"""Who waits for a job, beside the test that does something to it."""

import threading

from k8s.backends.rayjob import RayJobs
from k8s.follow import follow
from k8s.state import State


class Waiting(threading.Thread):
    """Follows a job; its end, what was said, and the lines of its log."""

    def __init__(self, place: RayJobs, name: str, patience: float = 30.0, hopeless: float = 120.0) -> None:
        super().__init__(daemon=True)
        self.place, self.job, self.patience, self.hopeless = place, name, patience, hopeless
        self.said: list[str] = []
        self.lines: list[str] = []
        self.end: State | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.end = follow(self.place, self.job, self.said.append, self.lines.append, self.patience, self.hopeless)
        except BaseException as error:
            self.error = error

    def found(self, seconds: float = 60.0) -> State:
        self.join(seconds)
        if self.error is not None:
            raise self.error
        assert self.end is not None, self.said
        return self.end

"""How a verb of this package ends other than well; ``code`` is the exit code, the same as that of any other verb."""

from collections.abc import Iterable
from difflib import get_close_matches


class Ended(Exception):
    """One message for a person, and the exit code."""

    code = 1


class Misuse(Ended):
    """A user's mistake: the message names the setting, the value and the remedy."""

    code = 2


class Lost(Ended):
    """The job or the cluster went away, and its end is not known."""

    code = 4


class Unreachable(Exception):
    """No answer, for now: what was asked may be asked again.  ``status``: of HTTP, 0 if there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Refusal(Exception):
    """A server's no, which asking again will not change.  ``status``: of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def nearest(name: str, names: Iterable[str]) -> str:
    """``; nearest: …``, or all there are if they are few, or nothing."""
    known = sorted(names)
    close = get_close_matches(name, known, 3, 0.5) or (known if len(known) <= 12 else [])
    return f"; nearest: {', '.join(close)}" if close else ""

"""The ways a verb ends other than well, each with its exit code in ``pipelines/cli.py``."""


def first_line(error: BaseException) -> str:
    """What it says first, or its kind if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class Misuse(Exception):
    """A user's mistake: the message names the setting, the value and the remedy.  Exit code 2."""


class Failure(Exception):
    """What was asked could not be done; the message says what and what to do.  Exit code 1."""


class Refused(Exception):
    """A gate said no, and nothing was moved.  Exit code 3."""


class Lost(Exception):
    """The cluster or job went away and its end is not known.  Exit code 4."""


class Stopped(Exception):
    """Ended on request, with the last checkpoint kept.  Exit code 5."""

"""Who holds a record, and whether that process is still there."""

import getpass
import os
import platform
import time
from pathlib import Path


def who() -> str:
    """``user@host``; in CI, the job's own name for who started it."""
    try:
        user = os.environ.get("GITHUB_ACTOR") or os.environ.get("GITLAB_USER_LOGIN") or getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = "unknown"
    return f"{user}@{platform.node()}"


def now() -> float:
    """Seconds that go on while the machine sleeps, where the system counts those."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def own() -> str:
    """This process, as ``gone`` knows it."""
    return _mark(os.getpid())


def gone(mark: str) -> bool:
    """Whether the process that ``own`` marked ran on this machine and has ended, or is this one, which does one thing
    at a time: no need to wait for the end of its time."""
    mine = own()
    if not mine or not mark or mark.split()[2] != mine.split()[2]:
        return False
    return mark == mine or _mark(int(mark.split()[0])) != mark


def _mark(pid: int) -> str:
    """Process, when it began, and what its number means: containers of one machine number theirs apart.  Empty where
    that cannot be told: not on Linux."""
    try:
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # in ticks since the machine began
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{pid} {began} {boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""

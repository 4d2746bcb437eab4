"""Which commit of the caller's code is running."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Git(NamedTuple):
    """``dirty``: tracked files differ from ``commit``."""

    commit: str
    dirty: bool


def state(folder: Path | str = ".") -> Git | None:
    """The commit checked out around ``folder``; None outside of a repository, or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return Git(commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no")))


def _git(folder: Path | str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

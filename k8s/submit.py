"""``holdfast submit``, ``status``, ``logs``, ``cancel``, ``list``: the same verbs and exit codes for all back-ends."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from k8s import job as jobs
from k8s import state
from k8s.errors import Lost, Misuse, Unreachable
from k8s.follow import Backend, Say, follow, patiently
from k8s.settings import KUBERNETES, RAY, Settings, read
from k8s.state import State

T = TypeVar("T")
WHERE = ("cluster", "backend", "context", "namespace", "address", "folder")
"""Settings without which a job is not found again."""


def backend(settings: Settings) -> Backend:
    """Each library is loaded only where it is used."""
    if settings.backend == KUBERNETES:
        from k8s.backends.rayjob import RayJobs

        return RayJobs(settings)
    if settings.backend == RAY:
        from k8s.backends.ray import RayCluster

        return RayCluster(settings)
    from k8s.backends.local import Local

    return Local(settings)


def submit(words: Sequence[str], command: Sequence[str], say: Say, line: Say, wait: bool, out: Path | None) -> State:
    """The job's end, or how it is if it is not waited for.

    Submitted again, a job is followed, never begun a second time.  Errors: ``Misuse`` before anything is created;
    ``Lost`` if the server stays away: the job goes on without us.
    """
    settings = read(words)
    job = jobs.make(settings, command)
    place = backend(settings)
    patience = 60 * settings.patience_minutes
    fresh(out)
    try:
        created = patiently(lambda: place.start(job), patience, say)
        say(f"{job.name} {'submitted to' if created else 'is there already, in'} {place.where}")
        found = patiently(lambda: place.state(job.name), patience, say)
        if not created and found.code is not None:
            say(f"{job.name} had ended before; again=true runs it anew")
        if wait:
            found = follow(place, job.name, say, line, patience)
    except Unreachable as error:
        if not getattr(place, "answered", True):
            raise Misuse(f"{error}: nothing was submitted") from error
        raise Lost(
            f"{error}; the job goes on without us if it was submitted, and the same command finds it again"
        ) from error
    except KeyboardInterrupt:
        there = " ".join([job.name, *(word for word in words if word.partition("=")[0] in WHERE)])
        say(f"{job.name} goes on: the same command follows it again, `holdfast cancel {there}` ends it")
        raise
    leave(found, out)
    return found


def status(name: str, words: Sequence[str], say: Say, out: Path | None) -> State:
    fresh(out)
    found = _asked(words, lambda place: place.state(name), say)
    leave(found, out)
    return found


def logs(name: str, words: Sequence[str], say: Say, line: Say) -> State:
    """Follow it to its end, as `submit` does."""
    settings = read(words)
    place = backend(settings)
    patience = 60 * settings.patience_minutes
    try:
        patiently(lambda: place.state(name), patience, say)
        return follow(place, name, say, line, patience)
    except Unreachable as error:
        raise Lost(str(error)) from error


def cancel(name: str, words: Sequence[str], say: Say) -> None:
    _asked(words, lambda place: place.cancel(name), say)


def listing(words: Sequence[str], say: Say) -> list[State]:
    return _asked(words, lambda place: place.jobs(), say)


def fresh(out: Path | None) -> None:
    """No outcome of before is taken for that of now.  Errors: ``Misuse`` for a folder that is not there."""
    if out is not None:
        if not out.resolve().parent.is_dir():
            raise Misuse(f"--json {out}: its folder is not there; make it first")
        out.unlink(missing_ok=True)


def _asked(words: Sequence[str], ask: Callable[[Backend], T], say: Say) -> T:
    settings = read(words)
    place = backend(settings)
    try:
        return patiently(lambda: ask(place), 60 * settings.patience_minutes, say)
    except Unreachable as error:
        raise Lost(str(error)) from error


def exit_code(found: State, entrypoint_code: bool = False) -> int:
    """Ours, or the command's own where it is known and asked for; 0 for a job that has not ended."""
    if entrypoint_code and found.exit_code is not None:
        return found.exit_code
    return state.OK if found.code is None else found.code


def leave(found: State, out: Path | None) -> None:
    if out is not None:
        part = out.with_name(f"{out.name}.part")
        part.write_text(json.dumps(asdict(found), indent=2) + "\n")
        part.replace(out)

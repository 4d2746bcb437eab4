"""What is asked to be run: a command line of Holdfast, and a name made of it."""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from k8s.errors import Misuse
from k8s.settings import Settings

LONGEST = 47
"""Characters of a RayJob's name: KubeRay makes names of pods and services out of it."""
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")
WRITERS = ("train", "tune", "evaluate", "retrain")
_DNS = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True)
class Job:
    """``command``: words after ``holdfast``.  ``digest``: of the command alone; ``inputs``: of all it computes with, in
    which two jobs of one name must agree."""

    name: str
    command: tuple[str, ...]
    digest: str
    inputs: str

    @property
    def writes(self) -> bool:
        """Whether two at once would write the same checkpoints or journals."""
        return self.command[0] in WRITERS

    @property
    def line(self) -> str:
        return shlex.join(["holdfast", *self.command])


def make(settings: Settings, command: Sequence[str]) -> Job:
    """The same command, image, tracking server and storage give the same name.

    Errors: ``Misuse`` for no command, and for a name that Kubernetes or KubeRay would refuse.
    """
    if not command or command[0].startswith("-"):
        raise Misuse("no command to run: holdfast submit [KEY=VALUE ...] -- train recipe=NAME ...")
    places = {"tracking_uri": settings.tracking_uri, "storage": settings.storage}
    places |= {f"env.{key}": value for key, value in settings.env.items()}
    for word in [*command, *(f"{key}={value}" for key, value in places.items())]:
        if _PASSWORD.search(word):
            raise Misuse(
                f"{word.partition('=')[0]}: a password in an address would stand in the open; leave it out, and give "
                "it by a Secret: secrets=NAME with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
    digest = _digest(list(command))
    parts = [list(command), settings.image, settings.tracking_uri, settings.storage, dict(settings.env)]
    inputs = _digest(parts)
    name = settings.name or _name(command, inputs)
    check(name)
    return Job(name, tuple(command), digest, inputs)


def check(name: str, longest: int = LONGEST) -> None:
    """Errors: ``Misuse`` for what cannot name an object of Kubernetes."""
    if len(name) > longest:
        raise Misuse(f"name={name} has {len(name)} characters, and KubeRay takes {longest} at most; give a shorter one")
    if not _DNS.fullmatch(name):
        raise Misuse(f"name={name}: use a-z, 0-9 and -, a letter first and no - at the end, as in name=digits-weekly")


def _name(command: Sequence[str], inputs: str) -> str:
    chosen = (word.partition("=")[2] for word in command if word.startswith(("recipe=", "search=", "register_as=")))
    words = "-".join([command[0], *list(chosen)[:1]])
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "job"
    slug = slug if slug[0].isalpha() else f"job-{slug}"
    return f"{slug[: LONGEST - 11].rstrip('-')}-{inputs[:10]}"


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def workers(command: Sequence[str]) -> int:
    """The last ``workers=N`` of a command, else 1: it alone says how many GPUs the command will ask Ray for."""
    given = [word.partition("=")[2] for word in command if word.startswith("workers=")]
    if not given:
        return 1
    if not given[-1].isdigit() or int(given[-1]) < 1:
        raise Misuse(f"workers={given[-1]} must be a whole number of at least 1")
    return int(given[-1])


def running(name: str, backend: str = "") -> Misuse:
    """A job of another name runs the same command.  ``backend``: the setting its verbs need, but for Kubernetes."""
    return Misuse(
        f"this very command is already running as {name}, of another name, image, place or env.: follow it with "
        f"`holdfast logs {name}{backend}`, or `holdfast cancel {name}{backend}` first"
    )


def unknown(name: str, where: str, backend: str = "") -> Misuse:
    return Misuse(f"{name}: no such job in {where}; `holdfast list{backend}` shows what there is")

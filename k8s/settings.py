"""What `holdfast submit` and its siblings can be told: the schema, and how it is read."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from k8s.errors import Misuse, nearest

KUBERNETES, RAY, LOCAL = "kubernetes", "ray", "local"
LEAST_KEPT = 10.0
"""Minutes.  A server that is away for longer ends the waiting too, unless ``patience_minutes`` was raised."""


@dataclass(frozen=True)
class Settings:
    """``cluster=FILE`` gives any of them, one ``KEY: VALUE`` a line; the command line wins."""

    backend: str = KUBERNETES
    """kubernetes (a RayJob), ray (the Jobs API of a running cluster), or local (this machine)"""
    cluster: str | None = None
    """a YAML file with any of these settings: what is the same for all jobs of a cluster"""
    name: str | None = None
    """of the job; made of its command and image unless given"""
    again: bool = False
    """run a job anew that has ended, instead of telling how it ended"""

    context: str | None = None
    """of the kube config; the current one unless given"""
    namespace: str | None = None
    """the one of the context unless given"""
    image: str | None = None
    """REPOSITORY:TAG or REPOSITORY@sha256:…"""
    pool: str = "a10g-spot"
    """where the workers run; `holdfast render pools` lists them"""
    head_pool: str = "head"
    """where the head and the driver run: never a spot pool"""
    head_cpus: float = 2.0
    """processors of the head's pod"""
    head_memory: float = 8.0
    """GiB of the head's pod"""
    pools: str | None = None
    """a folder with pools of your own"""
    gpus: int | None = None
    """of one worker pod; all of a node's unless given"""
    nodes: int | None = None
    """worker pods; as many as the command's workers= need unless given"""
    service_account: str = "holdfast-job"
    """of the job's pods; the head keeps its lease with it"""
    queue: str | None = None
    """a LocalQueue of Kueue"""
    priority: str | None = None
    """a WorkloadPriorityClass of Kueue"""
    retries: int = 2
    """new Ray clusters after a failure; a refusal or a misuse is not tried again"""
    deadline_minutes: float = 1440.0
    """of each try, from start to end"""
    start_minutes: float = 30.0
    """from admission to the first line of the command: node start, image pull"""
    keep_minutes: float = 1440.0
    """how long an ended job stays to be looked at; the next submission clears it away"""
    team: str | None = None
    """a label for cost"""

    tracking_uri: str | None = None
    """MLflow's, for the command"""
    storage: str | None = None
    """checkpoints, for the command: s3://bucket/prefix"""
    env: Mapping[str, str] = field(default_factory=dict)
    """for the command: env.KEY=VALUE"""
    secrets: tuple[str, ...] = ()
    """names of Secrets whose keys become environment variables of the command"""

    address: str | None = None
    """of a running Ray cluster's dashboard: http://HOST:8265; else RAY_API_SERVER_ADDRESS"""
    folder: str = "~/.local/state/holdfast/jobs"
    """where local jobs are kept"""

    patience_minutes: float = 10.0
    """how long a server that does not answer is waited for"""


HINTS = get_type_hints(Settings)
_KUBERNETES = (
    "context namespace image pool head_pool head_cpus head_memory pools gpus nodes service_account queue priority "
    "secrets deadline_minutes start_minutes keep_minutes team"
)
BACKENDS = {
    **dict.fromkeys(_KUBERNETES.split(), (KUBERNETES,)),
    "retries": (KUBERNETES, RAY),
    "address": (RAY,),
    "folder": (LOCAL,),
}
"""The back-ends that can keep a setting; a cluster file may hold those of another, a command line not."""
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY|API_KEY")


def read(words: Sequence[str]) -> Settings:
    """Errors: ``Misuse`` for an unknown key, a value of another type, and a number that cannot be."""
    found: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise Misuse(f"'{word}' is not a setting: write KEY=VALUE, and the command to run after --")
        found[key] = value
    if "cluster" in found:
        found = {**_file(found["cluster"]), **found}
    env = {key.removeprefix("env."): str(found.pop(key)) for key in list(found) if key.startswith("env.")}
    if unknown := sorted(set(found) - set(HINTS)):
        raise Misuse(f"{unknown[0]}: unknown setting{nearest(unknown[0], HINTS)}")
    values = {key: _value(key, value) for key, value in found.items()}
    values["env"] = {**values.get("env", {}), **env}
    settings = replace(Settings(), **values)
    _check(settings)
    for word in words:
        key = word.partition("=")[0].partition(".")[0]
        if key in HINTS and settings.backend not in BACKENDS.get(key, (KUBERNETES, RAY, LOCAL)):
            raise Misuse(f"{word}: backend={settings.backend} cannot keep it; leave it out, or take another backend")
    return settings


def _file(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, yaml.YAMLError) as error:
        raise Misuse(f"cluster={path} cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or "cluster" in content:
        raise Misuse(f"cluster={path}: write KEY: VALUE, one setting a line, and no other cluster")
    if unknown := sorted(set(content) - set(HINTS)):
        raise Misuse(f"cluster={path}: {unknown[0]} is an unknown setting{nearest(unknown[0], HINTS)}")
    return content


def _value(key: str, value: Any) -> Any:
    """``value`` as the schema has it; text from a command line, or what YAML made of it."""
    kind = HINTS[key]
    optional = type(None) in get_args(kind)
    if optional and (value is None or value in ("null", "")):
        return None
    plain = next((each for each in get_args(kind) if each is not type(None)), kind) if optional else kind
    try:
        if plain is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if plain in (int, float):
            return plain(value)
        if plain is str:
            return str(value)
        if key == "secrets":
            parsed = yaml.safe_load(value) if isinstance(value, str) and value.startswith("[") else value
            return tuple(str(each) for each in ([parsed] if isinstance(parsed, str) else parsed))
        return {str(name): str(each) for name, each in dict(value).items()}
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        wanted = kinds.get(plain, {"secrets": "a list, as in secrets=[a,b]"}.get(key, "given as env.KEY=VALUE"))
        raise Misuse(f"{key}={value} must be {wanted}") from error


def _check(settings: Settings) -> None:
    if settings.backend not in (KUBERNETES, RAY, LOCAL):
        raise Misuse(f"backend={settings.backend} is unknown; choose one of {KUBERNETES}, {RAY}, {LOCAL}")
    for key, least in (("gpus", 0), ("nodes", 1), ("retries", 0)):
        value = getattr(settings, key)
        if value is not None and value < least:
            raise Misuse(f"{key}={value} must be at least {least}")
    for key in ("deadline_minutes", "start_minutes", "patience_minutes", "head_cpus", "head_memory"):
        if not (0 < getattr(settings, key) < math.inf):
            raise Misuse(
                f"{key}={getattr(settings, key):g} must be a number above 0; {getattr(Settings(), key):g} is usual"
            )
    for key in settings.env:
        if _SECRET.search(key.upper()):
            raise Misuse(
                f"env.{key}: a secret would stand in the open, in the job and in lists of it; put it into a Secret, "
                "and name that: secrets=NAME"
            )
    if not (LEAST_KEPT <= settings.keep_minutes < math.inf):
        raise Misuse(
            f"keep_minutes={settings.keep_minutes:g} must be at least {LEAST_KEPT:g}: whoever waits for a job has to "
            "see its end"
        )


def ray_address(settings: Settings) -> str:
    """Errors: ``Misuse`` if there is none."""
    address = settings.address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS", "")
    if not address.startswith(("http://", "https://")):
        raise Misuse(
            f"address={address or 'null'}: backend=ray needs the dashboard of a running cluster: "
            "address=http://HOST:8265, or RAY_API_SERVER_ADDRESS"
        )
    return address.rstrip("/")


def listing() -> str:
    """Every setting with its default and what it is, for ``--help``."""
    import inspect

    lines = inspect.getsource(Settings).splitlines()
    notes = {
        line.split(":")[0].strip(): lines[i + 1].strip().strip('"')
        for i, line in enumerate(lines[:-1])
        if ":" in line and lines[i + 1].strip().startswith('"""')
    }
    rows = []
    for each in fields(Settings):
        default = getattr(Settings(), each.name)
        shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default or ""
        rows.append(f"  {each.name + '=' + str(shown):<42}{notes.get(each.name, '')}")
    return "\n".join(rows)

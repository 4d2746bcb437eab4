"""What a run holds: each start of a training or an evaluation is a tag of the run, ``held.<when it began>``, with its
processors, its pool and its end; and the metrics by which a training tells how far each of its attempts came."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from pipelines.errors import Stopped
from pipelines.tracking import server, versions

HELD = "held."
FROM, REACHED, NOTICE = "attempt/from_step", "attempt/step", "attempt/notice"
"""An attempt is a start of the workers, by a command or by Ray Train.  ``FROM``: the training step it continues from;
``REACHED``: the one each report came to; ``NOTICE``: the one at which a pre-emption was announced.  Their MLflow step
is the millisecond since 1970, which grows over restarts: the journal drops what repeats a step."""
TRAIN, EVALUATE, PROMOTE = "train", "evaluate", "promote"
FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"


@dataclass(frozen=True)
class Start:
    """``began``, ``ended``: milliseconds since 1970; ``ended`` and ``how`` are None where nobody could write them.
    ``gpus``, ``cpus``: of all workers.  ``pool``, ``job``: as ``holdfast submit`` named them, None elsewhere."""

    what: str
    began: int
    workers: int
    gpus: float
    cpus: float
    pool: str | None = None
    job: str | None = None
    ended: int | None = None
    how: str | None = None


@contextmanager
def held(uri: str, run_id: str, what: str, workers: int, resources: Mapping[str, float]) -> Iterator[None]:
    """What is held inside: ``workers``, each with ``resources`` by Ray's names.

    An end that the server does not take at once is left out, so that no command waits for it.  Errors: ``Failure`` if
    the server does not take the beginning.
    """
    start = Start(
        what=what,
        began=now(),
        workers=workers,
        gpus=workers * resources.get("GPU", 0),
        cpus=workers * resources["CPU"],
        pool=os.environ.get("HOLDFAST_POOL") or None,
        job=os.environ.get("HOLDFAST_JOB") or None,
    )
    _begin(uri, run_id, start)
    how = FAILED
    try:
        yield
        how = FINISHED
    except (KeyboardInterrupt, Stopped):
        how = STOPPED
        raise
    finally:
        with suppress(Exception):
            _write(uri, run_id, replace(start, ended=now(), how=how))


def now() -> int:
    return int(time.time() * 1000)


def starts(tags: Mapping[str, str]) -> list[Start]:
    """Those that a run's tags tell of, the oldest first; a tag changed by hand is none."""
    found = []
    for key, value in tags.items():
        if key.startswith(HELD):
            with suppress(ValueError, TypeError):
                start = Start(**json.loads(value))
                if all(isinstance(number, int | float) for number in (start.began, start.gpus, start.cpus)):
                    found.append(start)
    return sorted(found, key=lambda start: start.began)


def _begin(uri: str, run_id: str, start: Start) -> None:
    """With tags beside it by which people look for runs: the last start's pool, job, and what it held."""
    from mlflow.entities import RunTag

    shown = {key: getattr(start, key) for key in ("pool", "job", "gpus", "cpus")}
    every = {HELD + str(start.began): json.dumps(asdict(start))}
    every |= {key: f"{value:g}" if isinstance(value, float | int) else value for key, value in shown.items() if value}
    with versions.told(uri, "take what this run holds"):
        server.client(uri).log_batch(run_id, tags=[RunTag(key, value) for key, value in every.items()])


def _write(uri: str, run_id: str, start: Start, timeout: float = 5.0) -> None:
    key, value = HELD + str(start.began), json.dumps(asdict(start))
    if server.is_http(uri):
        server.call(uri, "runs/set-tag", {"run_id": run_id, "key": key, "value": value}, timeout=timeout)
    else:
        server.client(uri).set_tag(run_id, key, value)

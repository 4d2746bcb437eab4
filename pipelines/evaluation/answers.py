"""What an actor answers; of what went wrong the cause, without Ray's wrapping."""

from typing import Any

import torch

from pipelines.errors import Failure, Lost, first_line


def answer_of(reference: Any) -> Any:
    """Errors: what the task itself raised, or ``Failure`` with its words where it cannot travel.

    Where the actor could not be made: its ``ValueError``, ``Failure`` for anything else.  ``ray.exceptions.RayError``:
    the actor is lost.  ``Lost``: Ray itself no longer answers.
    """
    import ray
    from ray.exceptions import (
        LocalRayletDiedError,
        RayActorError,
        RaySystemError,
        RayTaskError,
        UnserializableException,
    )

    try:
        return ray.get(reference)
    except RayTaskError as error:  # first: it is of its cause's type too
        raise _met(error.cause) from error
    except RayActorError as error:
        if not error.actor_init_failed:
            raise
        raise _unmade(error.args[0].cause) from error
    except UnserializableException as error:
        raise _met(error) from error
    except (RaySystemError, LocalRayletDiedError, ConnectionError) as error:
        raise Lost(
            f"the Ray cluster went away ({first_line(error)}); the same command continues from the journal"
        ) from error


def _met(cause: Exception) -> Exception:
    """What a job raised; a ``Failure`` that quotes it where it could not travel."""
    from ray.exceptions import RayError

    return Failure(f"an evaluation worker failed: {_words(cause)}") if isinstance(cause, RayError) else cause


def _unmade(cause: Exception) -> Exception:
    if isinstance(cause, ValueError):
        return cause
    memory = isinstance(cause, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(cause)
    remedy = "; there is too little memory: use fewer workers on each machine, or device=cpu" if memory else ""
    return Failure(f"an evaluation worker could not start: {_words(cause)}{remedy}")


def _words(cause: Exception) -> str:
    """Kind and message in one line; Ray quotes what cannot travel as text, with its traceback before it."""
    from ray.exceptions import RayError

    if isinstance(cause, RayError):
        return str(cause).strip().splitlines()[-1].strip()
    return f"{type(cause).__name__}: {first_line(cause)}"

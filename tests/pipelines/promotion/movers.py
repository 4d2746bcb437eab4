"""Processes that move the same champion: one at a time, at once, or killed on the way.

As a program: ``movers.py URI NAME BEFORE AFTER [DIE_AT]`` moves once and, with ``DIE_AT``, is killed (-9) before its
write of that number.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipelines.errors import Refused
from pipelines.promotion import move
from pipelines.promotion.move import Plan
from pipelines.tracking import audit, server, versions


def model(uri: str, name: str, count: int = 4) -> None:
    """A registered model of ``count`` versions without files, the first of them champion."""
    client = server.client(uri)
    client.create_registered_model(name)
    for _ in range(count):
        client.create_model_version(name, f"s3://nowhere/{name}")
    versions.point(uri, name, versions.CHAMPION, 1)


def plan(uri: str, name: str, before: int, after: int) -> Plan:
    return Plan(name, "promote", before, after, before)


def go(uri: str, name: str, before: int, after: int) -> str:
    try:
        record = move.move(uri, plan(uri, name, before, after), {}, f"{after} for {before}", {"gate.passed": "true"})
    except Refused as error:
        return f"refused: {error}"
    return f"record {record.number}"


def before_writes(do: Callable[[int], None]) -> None:
    """Call ``do`` with the number of each write to the registry, before it is made."""
    count = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            do(count)
            count += 1
            return write(*args, **kwargs)

        return wrapped

    versions.point, versions.tag = counted(versions.point), counted(versions.tag)
    audit.append = counted(audit.append)


if __name__ == "__main__":
    uri, name, before, after, *rest = sys.argv[1:]
    if rest:
        before_writes(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == int(rest[0]) else None)
    print(go(uri, name, int(before), int(after)))

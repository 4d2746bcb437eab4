"""A nested config as MLflow params: flat names, short values, no credentials."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.redact import redact

NAME_LIMIT = 250
VALUE_LIMIT = 6000
"""MLflow's own limit; it cuts longer values without a word."""

_UNFIT = re.compile(r"[^\w\-./ :]", re.ASCII)


def fit_name(name: str) -> str:
    """``name`` in the letters MLflow takes for params, tags and metrics, and short enough."""
    name = _UNFIT.sub("_", name).strip("./ ") or "_"
    if len(name) <= NAME_LIMIT:
        return name
    return f"{name[: NAME_LIMIT - 9]}.{_digest(name)[:8]}"


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """``{"data": {"path": "x"}}`` is ``{"data.path": "x"}``; lists of plain values stay one value, other lists are
    numbered.  Credentials are hidden; a value over the limit keeps its start, its length and its digest."""
    return {fit_name(name): _fit_value(value) for name, value in _leaves(redact(config), "")}


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(node, list) and any(isinstance(item, Mapping | list) for item in node):
        for index, item in enumerate(node):
            yield from _leaves(item, f"{prefix}.{index}")
    else:
        yield prefix, node


def _fit_value(value: Any) -> str:
    text = json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)
    if len(text) <= VALUE_LIMIT:
        return text
    return f"{text[: VALUE_LIMIT - 120]}… ({len(text)} characters, sha256 {_digest(text)})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

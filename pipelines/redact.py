"""Credentials out of everything that is stored, printed or raised."""

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_SECRET_NAME = re.compile(
    r"token|passw|secret|credential|signature|api_?key|(?:^|[_.\-])keys?(?:$|[_.\-])",
    re.IGNORECASE,
)
_CAMEL_KEY = re.compile(r"[a-z]Keys?(?![a-z])")
# Up to the last @ before the path; a password may hold a slash too, if it cannot be read as host:port/path.
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)(?:[^/\s'\"]*@|[^/\s'\":@]*:(?!\d+/)[^\s'\"@]*@)")
_QUERY = re.compile(r"([?&;])([A-Za-z0-9_.\-]+)=([^&;\s'\"]+)")
_SECRET_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)


def redact_text(text: str) -> str:
    """``text`` without the user part of URIs, secret query values, and the values of this process's own credentials."""
    text = _USER_INFO.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(lambda m: f"{m[1]}{m[2]}={HIDDEN if _secret(m[2]) else m[3]}", text)
    for variable in _SECRET_VARIABLES:
        value = os.environ.get(variable, "")
        if len(value) >= 6:  # a shorter one would also blot out innocent words
            text = text.replace(value, HIDDEN)
    return text


def redact(config: Any) -> Any:
    """``config`` (nested mappings and sequences) with every value under a secret-looking name hidden, and every
    string cleaned.  ``None`` and booleans stay: ``class_token: true`` tells nobody anything."""
    if isinstance(config, Mapping):
        return {name: _hidden(value) if _secret(str(name)) else redact(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [redact(value) for value in config]
    return redact_text(config) if isinstance(config, str) else config


def _hidden(value: Any) -> Any:
    return value if value is None or isinstance(value, bool) else HIDDEN


def _secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name) or _CAMEL_KEY.search(name))

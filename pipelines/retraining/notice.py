"""What came of a retraining, to whoever asked to be told: JSON to any webhook, tried again until it is taken."""

import hashlib
import itertools
import json
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines import storage
from pipelines.errors import Misuse, first_line
from pipelines.retraining import signed

if TYPE_CHECKING:
    from requests import RequestException

SECRET = "HOLDFAST_WEBHOOK_SECRET"
"""The environment variable that signs what is sent; without it nothing is signed."""
FOLDER = "untold"
"""Of results that somebody did not take, a file each."""
TRIES, WITHIN = 4, 10.0


def check(urls: Sequence[str]) -> None:
    """Errors: ``Misuse`` for what is no address."""
    for url in urls:
        if not _is_address(url):
            raise Misuse(f"notify={_host(url)} is no address of a webhook: give http(s)://host/path")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def tell(urls: Sequence[str], found: Mapping[str, Any], place: str) -> list[str]:
    """POSTs ``found``; for those that do not take it it waits in ``place``.  A warning for each of them."""
    found = {"id": uuid.uuid4().hex, **found}
    problems = {url: problem for url in urls if (problem := _post(url, found))}
    if problems:
        _keep(f"{place}/{FOLDER}/{time.time_ns():020}.json", list(map(_mark, problems)), found)
    return list(itertools.starmap(_warning, problems.items()))


def catch_up(urls: Sequence[str], place: str) -> list[str]:
    """Sends what earlier commands could not, the oldest first; who does not take one is not tried with the next."""
    known, warnings = {_mark(url): url for url in urls}, []
    for path in storage.files(place).list(f"{place}/{FOLDER}"):
        left, found = _waiting(path)
        missed = []
        for mark in [mark for mark in left if mark in known]:
            if problem := _post(known[mark], found):
                warnings.append(_warning(known.pop(mark), problem))
                missed.append(mark)
        missed += [mark for mark in left if mark not in known and mark not in missed and mark in map(_mark, urls)]
        if missed:
            _keep(path, missed, found)
        else:
            storage.remove(path)
    return warnings


def _warning(url: str, problem: str) -> str:
    return f"notify={_host(url)} did not take the result ({problem}); the next retrain sends it again"


def _keep(path: str, left: Sequence[str], found: Mapping[str, Any]) -> None:
    storage.write(path, json.dumps({"left": list(left), "found": found}).encode())


def _waiting(path: str) -> tuple[list[str], dict[str, Any]]:
    """Whom it waits for, by their marks, and what; nobody for what cannot be read."""
    try:
        with storage.files(path).open(path) as file:
            waiting = json.loads(file.read())
        return list(waiting["left"]), dict(waiting["found"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return [], {}


def _post(url: str, found: Mapping[str, Any]) -> str:
    """Why it was not taken; empty if it was."""
    import requests
    from urllib3 import Retry

    body = json.dumps(found).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "holdfast"}
    if secret := os.environ.get(SECRET):
        ident, timestamp = str(found["id"]), str(int(time.time()))
        signature = signed.sign(secret, ident, timestamp, body)
        headers |= {"X-Holdfast-Id": ident, "X-Holdfast-Timestamp": timestamp, "X-Holdfast-Signature": signature}
    retry = Retry(
        total=TRIES - 1,
        backoff_factor=0.5,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        respect_retry_after_header=False,  # which may be hours
    )
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
            session.post(url, data=body, headers=headers, timeout=WITHIN).raise_for_status()
    except requests.RequestException as error:
        return _why(error)
    return ""


def _why(error: "RequestException") -> str:
    """Not in its own words: they repeat the address."""
    if error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return first_line(reason) if reason else type(error).__name__


def _mark(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def _host(url: str) -> str:
    """A webhook's path is often its password, and so is what stands before its host."""
    scheme, there, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{there}{re.split('[/?#]', rest)[0].rpartition('@')[2]}"

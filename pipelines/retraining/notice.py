"""What came of a retraining, to whoever asked to be told: JSON to any webhook, tried again until it is taken."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pipelines import storage
from pipelines.errors import Misuse, first_line
from pipelines.redact import redact_text
from pipelines.retraining import signed

SECRET = "HOLDFAST_WEBHOOK_SECRET"
"""The environment variable that signs what is sent; without it nothing is signed."""
FILE = "untold.json"
TRIES, WITHIN = 4, 10.0


def check(urls: Sequence[str]) -> None:
    """Errors: ``Misuse`` for what is no address."""
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise Misuse(f"notify={_host(url)} is no address of a webhook: give http(s)://host/path")


def tell(urls: Sequence[str], found: Mapping[str, Any], place: str) -> list[str]:
    """POSTs ``found``; what is not taken waits in ``place`` for the next command.  A warning for each that is not."""
    left, warnings = [], []
    for url in urls:
        if problem := _post(url, found):
            left.append(_host(url))
            warnings.append(f"notify={_host(url)} did not take the result ({problem}); the next retrain sends it again")
    if left:
        storage.write(f"{place}/{FILE}", json.dumps({"hosts": left, "found": dict(found)}).encode())
    return warnings


def catch_up(urls: Sequence[str], place: str) -> list[str]:
    """Sends what an earlier command could not."""
    path = f"{place}/{FILE}"
    try:
        with storage.files(place).open(path) as file:
            waiting = json.loads(file.read())
        again = [url for url in urls if _host(url) in waiting["hosts"]]
        found = waiting["found"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    storage.remove(path)
    return tell(again, found, place)


def _post(url: str, found: Mapping[str, Any]) -> str:
    """Why it was not taken; empty if it was."""
    import requests
    from urllib3 import Retry

    body = json.dumps(found).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "holdfast"}
    if secret := os.environ.get(SECRET):
        ident, timestamp = str(found.get("id", "")), str(int(time.time()))
        signature = signed.sign(secret, ident, timestamp, body)
        headers |= {"X-Holdfast-Id": ident, "X-Holdfast-Timestamp": timestamp, "X-Holdfast-Signature": signature}
    retry = Retry(total=TRIES - 1, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None)
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
            session.post(url, data=body, headers=headers, timeout=WITHIN).raise_for_status()
    except requests.RequestException as error:
        return redact_text(first_line(error)).replace(urlsplit(url).path or "\0", "/…")
    return ""


def _host(url: str) -> str:
    """A webhook's path is often its password."""
    return f"{urlsplit(url).scheme}://{urlsplit(url).hostname}"

"""``submitter.py URL REQUEST``: what the submitter's container runs, in place of KubeRay's own three commands.

Those are `ray job status || ray job submit --no-wait; ray job logs --follow`. These are the same steps over the same
HTTP calls, without the 3 s that each `ray` command takes to import. A head that dies ends it with 1, a job that ends,
however, with 0.
"""

import json
import sys
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def call(address: str, body: bytes | None = None) -> dict[str, Any]:
    with urlopen(Request(address, body, {"Content-Type": "application/json"}), timeout=60) as answer:
        return json.load(answer)


def submit(url: str, request: str) -> None:
    job = json.loads(request)["submission_id"]
    while True:
        try:
            urlopen(f"{url}/api/gcs_healthz", timeout=10).close()
            break
        except OSError:
            print(f"Waiting for Ray Dashboard GCS to become healthy at {url} ...", flush=True)
            time.sleep(0.2)
    try:
        call(f"{url}/api/jobs/{job}")
    except HTTPError as unknown:
        if unknown.code != 404:
            raise
        call(f"{url}/api/jobs/", request.encode())
    shown, status = 0, ""
    while status not in ("SUCCEEDED", "FAILED", "STOPPED"):
        status = call(f"{url}/api/jobs/{job}")["status"]
        logs = call(f"{url}/api/jobs/{job}/logs")["logs"]
        print(logs[shown:], end="", flush=True)
        shown = len(logs)
        time.sleep(0.2)
    print(f"Job '{job}' {status.lower()}", flush=True)


if __name__ == "__main__":
    submit(*sys.argv[1:])

"""``python -m k8s.once JOB -- COMMAND``: run a job's command, and nobody else at the same time; what Ray's head runs.

The command is started once this process holds the job's lease (see ``k8s.record``; ``HOLDFAST_LEASE_SECONDS`` gives it
another length), and ended when it loses it.  How it ended is written there.  A second start of a job that ended well,
or that was refused, runs nothing: it gives the same exit code.  Such an end other than 0 would make KubeRay try again,
on a new cluster: so the job is stopped instead.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from k8s import record
from k8s.client import Api, Object
from k8s.errors import Misuse, Refusal, Unreachable

FINAL = (0, 2, 3)
"""Done, misuse, refused by a gate: running the same command again would end the same."""
POLL_SECONDS = 2.0


class Lease:
    """The job's lease, held by one process."""

    def __init__(self, api: Api, name: str, holder: str, seconds: float = record.SECONDS) -> None:
        self.api, self.name, self.holder, self.seconds = api, name, holder, seconds
        self.lost = threading.Event()

    def take(self) -> int | None:
        """Wait until it is ours, then None; or the exit code of an end that stands."""
        seen: dict[str, Any] = {}
        since = time.monotonic()
        while True:
            try:
                lease = self.api.get("Lease", self.name) or self.api.create(record.lease(self.name, self.api.namespace))
                found = record.read(lease)
                if found and found.exit_code in FINAL:
                    return found.exit_code
                spec = lease.get("spec") or {}
                if spec != seen:  # by our own clock: that of another machine may be wrong
                    if spec.get("holderIdentity") and spec["holderIdentity"] != seen.get("holderIdentity"):
                        print(f"{self.name} is held by {spec['holderIdentity']}: waiting for it to end", flush=True)
                    seen, since = spec, time.monotonic()
                free = not spec.get("holderIdentity") or spec["holderIdentity"] == self.holder
                if free or time.monotonic() - since > spec.get("leaseDurationSeconds", record.SECONDS):
                    notes = lease["metadata"].get("annotations") or {}  # the end of an earlier try is not that of this
                    kept = {key: note for key, note in notes.items() if key not in (record.EXIT, record.ENDED)}
                    self._write({**lease, "metadata": {**lease["metadata"], "annotations": kept}}, self._held())
                    return None
            except (Unreachable, Refusal) as error:
                if isinstance(error, Refusal) and error.status not in (404, 409):
                    raise
            time.sleep(POLL_SECONDS)

    def keep(self, stop: threading.Event) -> None:
        """Renew it until ``stop``.  ``lost`` is set once another holds it, or half its length went by without."""
        renewed = time.monotonic()
        while not stop.wait(self.seconds / 8):
            asked = time.monotonic()
            try:
                lease = self.api.get("Lease", self.name)
                if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self.holder:
                    break
                self._write(lease, self._held())
                renewed = asked
            except (Unreachable, Refusal):
                if time.monotonic() - renewed > self.seconds / 2:
                    break
        else:
            return
        self.lost.set()

    def leave(self, exit_code: int, patience: float = 300.0) -> None:
        """Write how the command ended, and let go."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            try:
                lease = self.api.get("Lease", self.name)
                if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self.holder:
                    return
                lease["metadata"].setdefault("annotations", {}).update(
                    {record.EXIT: str(exit_code), record.ENDED: _now()}
                )
                self._write(lease, {"holderIdentity": ""})
                return
            except (Unreachable, Refusal):
                time.sleep(POLL_SECONDS)

    def _held(self) -> dict[str, Any]:
        seconds = max(1, round(self.seconds))
        return {"holderIdentity": self.holder, "leaseDurationSeconds": seconds, "renewTime": _now()}

    def _write(self, lease: Object, spec: dict[str, Any]) -> None:
        self.api.replace({**lease, "kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "spec": spec})


def once(api: Api, name: str, command: Sequence[str], holder: str, seconds: float = record.SECONDS) -> int:
    """The command's exit code, 128 + n for signal n."""
    lease = Lease(api, name, holder, seconds)
    if (code := lease.take()) is not None:
        print(f"{name} had ended with exit code {code}: nothing to run", flush=True)
        return code
    stop = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(stop,), daemon=True)
    keeper.start()
    code = _run(command, lease.lost, seconds / 6)
    stop.set()
    keeper.join()
    if lease.lost.is_set():
        print(f"{name}: the lease was lost, the command was ended", flush=True)
        return code or 4
    lease.leave(code)
    return code


def _run(command: Sequence[str], lost: threading.Event, grace: float) -> int:
    """``grace``: seconds that the command has to end by itself once the lease is ``lost``."""
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: child.send_signal(number))
    told: float | None = None
    while True:
        try:
            code = child.wait(timeout=0.5)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            if lost.is_set() and told is None:
                told = time.monotonic()
                child.terminate()
            elif told is not None and time.monotonic() - told > grace:
                child.kill()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _stop_job() -> None:
    """Have Ray call this job stopped: a failed one would be tried again."""
    metadata = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("metadata", {})
    if job := metadata.get("job_submission_id"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.run(["ray", "job", "stop", "--no-wait", job], check=False, capture_output=True, timeout=60)
        time.sleep(30)  # Ray ends this process meanwhile


def main(arguments: Sequence[str]) -> int:
    name, dashes, *command = arguments
    if dashes != "--" or not command:
        print("usage: python -m k8s.once JOB -- COMMAND", file=sys.stderr)
        return 2
    holder = f"{os.environ.get('HOSTNAME', 'unknown')}-{os.getpid()}"
    try:
        api = Api(namespace=os.environ.get("HOLDFAST_NAMESPACE"))
        seconds = float(os.environ.get("HOLDFAST_LEASE_SECONDS", record.SECONDS))
        api.read_seconds = seconds / 8
        code = once(api, name, command, holder, seconds)
    except (Misuse, Refusal) as error:  # no rights: a new cluster would have them as little
        print(f"the lease of {name} cannot be had ({error})", file=sys.stderr)
        code = 2
    if code in FINAL and code:
        _stop_job()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

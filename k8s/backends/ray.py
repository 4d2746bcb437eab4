"""Jobs of a running Ray cluster, by its Jobs API: what `ray job submit` uses too."""

import os
import time
from collections.abc import Iterator
from typing import Any

import requests

from k8s import state
from k8s.errors import Misuse, Refusal, Unreachable
from k8s.job import Job, running, unknown
from k8s.settings import Settings, ray_address
from k8s.state import State

PHASES = {"PENDING": state.STARTING, "RUNNING": state.RUNNING}
SECONDS = (10.0, 30.0)
"""To connect, and to answer."""
FORGET_SECONDS = 5.0
"""Ray's monitor of an ended job looks at it once a second; one of its name, seen by it, would be called dead."""
LOG_SECONDS, LOG_CHARACTERS = 2.0, 1 << 20
"""Between two looks at a log: so long at least, and a second for so many characters of it.

Ray's HTTP API takes no offset: /api/jobs/ID/logs is always the whole log, /api/v0/logs its last lines, without numbers.
"""


class RayCluster:
    """``seen``: jobs that the cluster has had: one that it no longer has went with its head.

    Once there is one, what would be a user's mistake (a token, a proxy's page) is waited for: the job runs meanwhile.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.address = settings, ray_address(settings)
        self.session = requests.Session()
        if token := os.environ.get("RAY_AUTH_TOKEN"):
            self.session.headers["Authorization"] = f"Bearer {token}"
        self.job: Job | None = None
        self.left = settings.retries
        self.seen: set[str] = set()
        self.due: dict[str, float] = {}
        self.where = f"the Ray cluster at {self.address}"
        self._here = f" backend=ray address={self.address}"

    def start(self, job: Job) -> bool:
        """Whether it was created; else it was there."""
        self.job = job
        there = self._find(job.name)
        if there is not None:
            self._same(there, job)
        while there is not None:
            code = self._read(there).code
            if code != state.LOST and not (self.settings.again and code is not None):
                return False
            self._ask("DELETE", f"/api/jobs/{job.name}")
            time.sleep(FORGET_SECONDS)
            there = self._find(job.name)  # the monitor may have written it down anew, as dead
        self._alone(job)
        return self._submit(job)

    def state(self, name: str) -> State:
        """The job we submitted, if its cluster knows it no longer, as after a new head came, is begun again: it is safe
        to run twice.  Another that was seen is lost."""
        there = self._find(name)
        if there is not None:
            return self._read(there)
        if name not in self.seen:
            raise unknown(name, self.where, self._here)
        if self.job is None or self.job.name != name or self.left == 0:
            return state.ended(
                name, state.LOST, "HeadLost", "the cluster no longer knows it; the same command continues"
            )
        self._submit(self.job)
        self.left -= 1
        return State(name, state.STARTING, "Retrying", "the cluster's head was lost: trying again")

    def jobs(self) -> list[State]:
        found = [each for each in self._list() if "holdfast" in (each.get("metadata") or {})]
        return [self._read(each) for each in sorted(found, key=lambda each: -(each.get("start_time") or 0))]

    def cancel(self, name: str) -> None:
        if self._find(name) is None:
            raise unknown(name, self.where, self._here)
        self._ask("POST", f"/api/jobs/{name}/stop")

    def wait(self, name: str, seconds: float) -> None:
        time.sleep(min(1.0, seconds))

    def logs(self, name: str, since: str | None) -> Iterator[tuple[str, str, str]]:
        """``(run, place, line)`` of the log so far; ``since``: the last place seen, which comes again.

        A run is a job and its start, and a place names its run: a job that was begun again is read from its beginning.
        """
        there = self._find(name)
        if there is None:
            return
        run, ended = f"{name}@{there.get('start_time') or 0}", there["status"] not in PHASES
        if not ended and time.monotonic() < self.due.get(run, 0.0):
            return
        text = str(self._ask("GET", f"/api/jobs/{name}/logs").get("logs") or "")
        self.due[run] = time.monotonic() + max(LOG_SECONDS, len(text) / LOG_CHARACTERS)
        *lines, rest = text.split("\n")
        if ended and rest:  # while it runs, a last line without its end is not whole
            lines.append(rest)
        of, _, number = (since or "").rpartition("/")
        for i in range(int(number) if of == run else 0, len(lines)):
            yield run, f"{run}/{i:012d}", lines[i]

    def _submit(self, job: Job) -> bool:
        env = {**self.settings.env, "HOLDFAST_JOB": job.name}
        places = {"MLFLOW_TRACKING_URI": self.settings.tracking_uri, "HOLDFAST_STORAGE": self.settings.storage}
        env |= {key: value for key, value in places.items() if value}
        metadata = {"holdfast": job.digest, "inputs": job.inputs, "line": job.line}
        body = {
            "submission_id": job.name,
            "entrypoint": job.line,
            "runtime_env": {"env_vars": env},
            "metadata": metadata,
            "entrypoint_num_cpus": 0,
        }
        try:
            self._send("POST", "/api/jobs/", body)
            self.seen.add(job.name)
            return True
        except Refusal as error:
            there = self._find(job.name)
            if there is None:
                raise Misuse(f"{self.where} refuses the job ({error})") from error
            self._same(there, job)
            return False  # another submitter was first

    def _same(self, there: dict[str, Any], job: Job) -> None:
        metadata = there.get("metadata") or {}
        if metadata.get("inputs") != job.inputs:
            raise Misuse(
                f"name={job.name} is another job's ({metadata.get('line', there.get('entrypoint'))}); give another, or "
                "leave name out"
            )

    def _alone(self, job: Job) -> None:
        for each in self._list() if job.writes else ():
            same = (each.get("metadata") or {}).get("holdfast") == job.digest
            if same and each["submission_id"] != job.name and self._read(each).code is None:
                raise running(each["submission_id"], self._here)

    def _read(self, there: dict[str, Any]) -> State:
        name, status, exit_code = there["submission_id"], there["status"], there.get("driver_exit_code")
        more = {"line": (there.get("metadata") or {}).get("line", ""), "started": _time(there.get("start_time"))}
        if status in PHASES:
            return State(
                name, PHASES[status], status.capitalize(), _first(there) if status == "PENDING" else "", **more
            )
        if status == "STOPPED":
            return state.ended(name, state.STOPPED, "Stopped", _first(there), exit_code, **more)
        if status == "SUCCEEDED":
            return state.of_exit(name, state.OK, **more)
        if exit_code is None or exit_code <= 0:  # it never ran, or nobody saw its end
            lost = "actor" in _first(there).lower() or "node" in _first(there).lower()
            return state.ended(name, state.LOST if lost else state.FAILURE, "Failed", _first(there), exit_code, **more)
        return state.of_exit(name, exit_code, **more)

    def _find(self, name: str) -> dict[str, Any] | None:
        try:
            found = self._send("GET", f"/api/jobs/{name}")
        except Refusal as error:
            if error.status == 404:
                return None
            raise self._refused(error) from error
        self.seen.add(name)
        return dict(found)

    def _list(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/api/jobs/", kind=list))

    def _ask(self, method: str, path: str, kind: type = dict) -> Any:
        """Errors: ``Misuse`` for what the cluster refuses."""
        try:
            return self._send(method, path, kind=kind)
        except Refusal as error:
            raise self._refused(error) from error

    def _send(self, method: str, path: str, body: Any = None, kind: type = dict) -> Any:
        """Errors: ``Refusal`` with the cluster's own words."""
        try:
            answer = self.session.request(method, f"{self.address}{path}", json=body, timeout=SECONDS)
        except requests.RequestException as error:
            raise Unreachable(f"{self.where} does not answer ({type(error).__name__})") from error
        status = answer.status_code
        if status in (401, 403):
            remedy = "set RAY_AUTH_TOKEN to the cluster's token"
            kept = "KubeRay keeps it in the Secret of the cluster's name, key auth_token"
            raise self._mistaken(f"{self.where} answers {status}: {remedy} ({kept})", status)
        if status in (408, 429, 502, 503, 504) or (status == 500 and method == "GET"):
            raise Unreachable(f"{self.where} answers {status}", status)
        if status >= 400:
            raise Refusal(status, answer.text.strip().rpartition("\n")[2][:300])
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, kind):
            said = f"is not a Ray dashboard (it answers {answer.headers.get('Content-Type', 'nothing')})"
            raise self._mistaken(f"address={self.address} {said}; correct it: address=http://HOST:8265", status)
        return found

    def _mistaken(self, said: str, status: int) -> Exception:
        return Unreachable(said, status) if self.seen else Misuse(said)

    def _refused(self, error: Refusal) -> Misuse:
        return Misuse(f"{self.where} refuses ({error.status}: {error})")


def _first(there: dict[str, Any]) -> str:
    return next((line.strip() for line in (there.get("message") or "").splitlines() if line.strip()), "")[:500]


def _time(milliseconds: int | None) -> str | None:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None

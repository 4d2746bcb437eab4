"""Jobs of a running Ray cluster, by its Jobs API: what `ray job submit` uses too."""

import os
import time
from collections.abc import Iterator
from typing import Any

import requests

from k8s import state
from k8s.errors import Misuse, Refusal, Unreachable
from k8s.job import Job
from k8s.settings import Settings, ray_address
from k8s.state import State

PHASES = {"PENDING": state.STARTING, "RUNNING": state.RUNNING}
SECONDS = (10.0, 30.0)
"""To connect, and to answer."""
FORGET_SECONDS = 5.0
"""Ray's monitor of an ended job looks at it once a second; one of its name, seen by it, would be called dead."""


class RayCluster:
    """``seen``: jobs that the cluster has had: one that it no longer has went with its head."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.address = settings, ray_address(settings)
        self.session = requests.Session()
        if token := os.environ.get("RAY_AUTH_TOKEN"):
            self.session.headers["Authorization"] = f"Bearer {token}"
        self.job: Job | None = None
        self.left = settings.retries
        self.where = f"the Ray cluster at {self.address}"

    def start(self, job: Job) -> bool:
        """Whether it was created; else it was there."""
        self.job = job
        there = self._find(job.name)
        if there is not None:
            self._same(there, job)
            if not (self.settings.again and self._read(there).code is not None):
                return False
            self._ask("DELETE", f"/api/jobs/{job.name}")
            time.sleep(FORGET_SECONDS)
        self._alone(job)
        return self._submit(job)

    def state(self, name: str) -> State:
        """A job that its cluster no longer knows, after a new head came, is begun again: it is safe to run twice."""
        there = self._find(name)
        if there is not None:
            return self._read(there)
        if self.job is None:
            raise Misuse(f"{name}: no such job in {self.where}; `holdfast list` shows what there is")
        if self.left == 0:
            return state.ended(
                name, state.LOST, "HeadLost", "the cluster no longer knows it; the same command continues"
            )
        self.left -= 1
        self._submit(self.job)
        return State(name, state.STARTING, "Retrying", "the cluster's head was lost: trying again")

    def jobs(self) -> list[State]:
        found = [each for each in self._ask("GET", "/api/jobs/") if "holdfast" in (each.get("metadata") or {})]
        return [self._read(each) for each in sorted(found, key=lambda each: -(each.get("start_time") or 0))]

    def cancel(self, name: str) -> None:
        if self._find(name) is None:
            raise Misuse(f"{name}: no such job in {self.where}; `holdfast list` shows what there is")
        self._ask("POST", f"/api/jobs/{name}/stop")

    def wait(self, name: str, seconds: float) -> None:
        time.sleep(min(1.0, seconds))

    def logs(self, name: str, since: str | None) -> Iterator[tuple[str, str, str]]:
        """``(name, number, line)`` of the log so far; ``since``: the last one seen, which comes again."""
        text = str(self._ask("GET", f"/api/jobs/{name}/logs").get("logs") or "")
        *lines, _ = text.split("\n")  # the last one is not whole
        for number in range(int(since) if since else 0, len(lines)):
            yield name, f"{number:012d}", lines[number]

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
            self._ask("POST", "/api/jobs/", body)
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
        for each in self._ask("GET", "/api/jobs/"):
            same = (each.get("metadata") or {}).get("holdfast") == job.digest
            if same and each["submission_id"] != job.name and self._read(each).code is None:
                other = each["submission_id"]
                raise Misuse(
                    f"this very command is already running as {other}: follow it with `holdfast logs {other} "
                    f"backend=ray`, or `holdfast cancel {other} backend=ray` first"
                )

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
            return dict(self._ask("GET", f"/api/jobs/{name}"))
        except Refusal as error:
            if error.status == 404:
                return None
            raise Misuse(f"{self.where} refuses ({error})") from error

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self.session.request(method, f"{self.address}{path}", json=body, timeout=SECONDS)
        except requests.RequestException as error:
            raise Unreachable(f"{self.where} does not answer ({type(error).__name__})") from error
        if answer.status_code in (401, 403):
            raise Misuse(
                f"{self.where} answers {answer.status_code}: set RAY_AUTH_TOKEN to the cluster's token (KubeRay keeps "
                "it in the Secret of the cluster's name, key auth_token)"
            )
        if answer.status_code in (408, 429, 502, 503, 504) or (answer.status_code == 500 and method == "GET"):
            raise Unreachable(f"{self.where} answers {answer.status_code}", answer.status_code)
        if answer.status_code >= 400:
            raise Refusal(answer.status_code, answer.text.strip().splitlines()[-1][:300] if answer.text else "")
        return answer.json() if answer.content else {}


def _first(there: dict[str, Any]) -> str:
    return next((line.strip() for line in (there.get("message") or "").splitlines() if line.strip()), "")[:500]


def _time(milliseconds: int | None) -> str | None:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None

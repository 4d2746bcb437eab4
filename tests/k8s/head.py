"""A Ray head on this machine, which may die and come back."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import requests

from tests.k8s.plane import Object
from tests.pipelines.ports import free_ports


class Head:
    """A real `ray start --head`. The next one listens where the last did: in a cluster its service's name lasts."""

    def __init__(self, cpus: int = 3) -> None:
        self.port, self.dashboard, self.agent = free_ports(3)
        self.url = f"http://127.0.0.1:{self.dashboard}"
        self._place = Path("/tmp") / f"holdfast-head-{os.getpid()}-{self.port}"  # sockets allow 107 characters
        self._cpus, self._process = cpus, None

    _process: "subprocess.Popen[bytes] | None"

    def __enter__(self) -> "Head":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self._place, ignore_errors=True)

    def start(self) -> None:
        """Begins it; `ready` says when it answers (about 7 s)."""
        binaries = Path(sys.executable).parent
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_JOB_HEADERS")}
        environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        command = [
            str(binaries / "ray"),
            "start",
            "--head",
            "--block",
            f"--port={self.port}",
            "--include-log-monitor=false",
        ]
        command += [f"--dashboard-port={self.dashboard}", f"--dashboard-agent-listen-port={self.agent}"]
        command += [f"--num-cpus={self._cpus}", f"--temp-dir={self._place}", "--node-ip-address=127.0.0.1"]
        self._place.mkdir(exist_ok=True)
        with (self._place / "start.log").open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ready(self) -> bool:
        """As KubeRay's probes: the dashboard answers, and so does the node's agent, which takes the jobs."""
        probes = (f"{self.url}/api/gcs_healthz", f"http://127.0.0.1:{self.agent}/api/local_raylet_healthz")
        try:
            return self.alive and all(requests.get(probe, timeout=2).ok for probe in probes)
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """SIGKILL for all of it, as when a head's node goes: Ray, its workers, and the entrypoints they run."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            whole = psutil.Process(self._process.pid)
            for process in [whole, *whole.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.wait()

    def job(self, name: str) -> Object | None:
        """What Ray knows of a job: None where it knows none. ``requests.RequestException``: no answer."""
        answer = requests.get(f"{self.url}/api/jobs/{name}", timeout=5)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json()

    def stop(self, name: str) -> None:
        with suppress(requests.RequestException):
            requests.post(f"{self.url}/api/jobs/{name}/stop", timeout=5)

"""One pod on a kubelet: its container's process, and what the API server is told of it."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import urllib3
from kubernetes.client import ApiException

from tests.k8s.controlplane.container import NotThere, environment, expanded
from tests.k8s.controlplane.control_plane import TIED, ControlPlane
from tests.k8s.controlplane.log import Log
from tests.k8s.plane import JSON, STRATEGIC, Object

UNREACHABLE = (ApiException, urllib3.exceptions.HTTPError)
AGAIN = 0.2
"""Seconds until what failed is tried again."""
BACKOFF = 10
"""Seconds before the second restart of a container, doubled for each more; the first is at once."""


@dataclass(frozen=True)
class Machine:
    plane: ControlPlane
    folder: Path
    env: Mapping[str, str]
    absent_images: set[str]
    stopped: threading.Event = field(default_factory=threading.Event)


class Pod(threading.Thread):
    """From its start to its end. One deleted before ``start`` only ends."""

    def __init__(self, machine: Machine, pod: Object) -> None:
        super().__init__(name=pod["metadata"]["name"], daemon=True)
        self.machine, self.pod, self.container = machine, pod, pod["spec"]["containers"][0]
        self.namespace, self.uid = pod["metadata"]["namespace"], pod["metadata"]["uid"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.log: Log | None = None
        self.waits_for, self.restarts, self.began = "ContainerCreating", 0, _now()
        self._deleted, self._lock = threading.Event(), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def delete(self, grace: float) -> None:
        """SIGTERM to the container, after ``grace`` SIGKILL to all of it. Said again, the shorter one holds."""
        with self._lock:
            first = not self._deleted.is_set()
            self._deleted.set()
            process = self._process
        if process and process.poll() is None:
            if first and grace:
                process.terminate()
            timer = threading.Timer(grace, lambda: _kill(process) if process.poll() is None else None)
            timer.daemon = True
            timer.start()

    def run(self) -> None:
        while not self._deleted.is_set():
            code = self._run_container()
            if code is None or not self._restarts_after(code):
                break
            self.restarts += 1
            self._wait("CrashLoopBackOff", "", BACKOFF * 2 ** (self.restarts - 2) if self.restarts > 1 else 0)
        self._deleted.wait()
        self._tell("DELETE", self.path, {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}})

    def _run_container(self) -> int | None:
        """Its exit code; None if it never started."""
        try:
            process = self._start_when_ready()
        except OSError as error:
            self._report("Failed", {"terminated": {"exitCode": 128, "reason": "StartError", "message": str(error)}})
            return None
        if process is None:
            return None
        assert self.log
        begun = _now()
        reader = threading.Thread(target=self.log.drain, args=[process.stdout], daemon=True)
        reader.start()
        self._report("Running", {"running": {"startedAt": begun}}, ready=True)
        code = process.wait()
        code = code if code >= 0 else 128 - code
        _kill(process)  # what it left: a container ends with its first process
        reader.join(timeout=2)  # a daemon it left in a session of its own would keep it
        last = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": begun, "finishedAt": _now()}
        phase = "Running" if self._restarts_after(code) else "Failed" if code else "Succeeded"
        self._report(phase, {"terminated": last})
        return code

    def _restarts_after(self, code: int) -> bool:
        policy = self.pod["spec"]["restartPolicy"]
        return not self._deleted.is_set() and (policy == "Always" or (policy == "OnFailure" and code != 0))

    def _start_when_ready(self) -> subprocess.Popen[bytes] | None:
        """As soon as all it needs is there; None if it is deleted before."""
        while not self._deleted.is_set():
            try:
                if (image := self.container["image"]) in self.machine.absent_images:
                    self._wait("ErrImagePull", f'failed to pull image "{image}": not found', AGAIN)
                    self._wait("ImagePullBackOff", f'Back-off pulling image "{image}"', None)
                else:
                    return self._start_container()
            except NotThere as missing:
                self._wait("CreateContainerConfigError", str(missing), 1)
            except UNREACHABLE:
                self.machine.stopped.wait(AGAIN)
        return None

    def _start_container(self) -> subprocess.Popen[bytes] | None:
        spec, folder = self.pod["spec"], self.machine.folder / self.uid
        values = environment(self.pod, self.container, self._read)
        if not self.container.get("command"):
            raise NotThere(f"container {self.container['name']}: no command, and no image here to have an entrypoint")
        words = [*self.container["command"], *self.container.get("args", ())]
        folder.mkdir(parents=True, exist_ok=True)
        own = {"HOME": str(folder), "HOSTNAME": self.name}
        if spec.get("automountServiceAccountToken", True):
            own["KUBECONFIG"] = str(folder / "kubeconfig")
            self.machine.plane.kubeconfig_for(self.namespace, spec["serviceAccountName"], path=folder / "kubeconfig")
        env = {**self.machine.env, **own, **values}
        program, *arguments = expanded(words, values)
        if not shutil.which(program, path=env["PATH"]):
            raise FileNotFoundError(f'exec: "{program}": executable file not found in $PATH')
        with self._lock:
            if self._deleted.is_set():
                return None
            self.log = Log()
            self._process = subprocess.Popen(
                [*TIED, program, *arguments],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            return self._process

    def _read(self, kind: str, name: str) -> Object | None:
        try:
            return self.machine.plane.call("GET", self.machine.plane.path("v1", kind, self.namespace, name))
        except ApiException as refusal:
            if refusal.status == 404:
                return None
            raise

    def _wait(self, reason: str, message: str, seconds: float | None) -> None:
        """Until it is deleted, or for so long."""
        self.waits_for = reason
        self._report("Running" if self.restarts else "Pending", {"waiting": {"reason": reason, "message": message}})
        self._deleted.wait(seconds)

    def _report(self, phase: str, state: Object, ready: bool = False) -> None:
        container = {
            "name": self.container["name"],
            "image": self.container["image"],
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": self.restarts,
            "state": state,
        }
        conditions = {"Initialized": True, "Ready": ready, "ContainersReady": ready}
        status = {
            "phase": phase,
            "startTime": self.began,
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": kind, "status": str(holds)} for kind, holds in conditions.items()],
            "containerStatuses": [container],
        }
        self._tell("PATCH", f"{self.path}/status", {"metadata": {"uid": self.uid}, "status": status}, STRATEGIC)

    def _tell(self, method: str, path: str, body: Object, content: str = JSON) -> None:
        """Until the API server has it, or has no such pod any more; what it calls wrong is our mistake."""
        while not self.machine.stopped.is_set():
            try:
                self.machine.plane.call(method, path, body, content)
                return
            except UNREACHABLE as error:
                status = error.status if isinstance(error, ApiException) else None
                if status == 404 or (status == 409 and "UID in" in str(error)):
                    return
                if status in (400, 403, 422):
                    raise
                self.machine.stopped.wait(AGAIN)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The kubelet's part, for nodes made up by ``ControlPlane.node``: a pod's first container is a process on this machine.

Its image means nothing: the process has this interpreter's programs on its PATH, an empty folder to work in, and as
KUBECONFIG a token of the pod's own service account (a process cannot have a file mounted as its own at
/var/run/secrets). Volumes, probes, limits, init containers and all other containers are passed over.
"""

import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR, socket

import urllib3

from tests.k8s.controlplane.control_plane import ControlPlane
from tests.k8s.controlplane.log import Log, LogServer, Refusal
from tests.k8s.controlplane.pod import AGAIN, UNREACHABLE, Machine, Pod
from tests.k8s.plane import Object, events

PROGRAMS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


class Kubelet:
    """Runs the pods for which ``runs`` is true; the others stay as the scheduler left them, for a test to play.

    ``env`` is what the image would set. A container of one of ``absent_images`` never starts.
    """

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        runs: Callable[[Object], bool] = lambda pod: True,
        absent_images: Collection[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.runs = runs
        self.machine = Machine(plane, folder, {"PATH": PROGRAMS, "LANG": "C.UTF-8", **(env or {})}, set(absent_images))
        self._plane, self._stopped = plane, self.machine.stopped
        self._pods: dict[str, Pod] = {}
        self._stream: urllib3.BaseHTTPResponse | None = None
        self._logs = LogServer(plane.kubelet_port, plane.certificates, self._log)
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def cut_logs(self) -> None:
        """Every stream of a log breaks off; the containers go on."""
        self._logs.cut()

    def stop(self) -> None:
        """Kills what runs, and says nothing of it to the API server."""
        self._stopped.set()
        while self._watcher.is_alive():
            self._break_off()
            self._watcher.join(0.05)
        for pod in self._pods.values():
            pod.delete(0)
        for pod in self._pods.values():
            pod.join()
        self._logs.close()

    def _break_off(self) -> None:
        """End the watch. Not by ``SSLSocket.shutdown``: that takes the TLS from its reader, who sees ciphertext."""
        connection = getattr(self._stream and self._stream.connection, "sock", None)
        if connection:
            with suppress(OSError):
                socket.shutdown(connection, SHUT_RDWR)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                version = self._list()
                self._stream = self._plane.open("GET", "/api/v1/pods", watch="true", resourceVersion=version)
                for event in events(self._stream):
                    if event["type"] == "ERROR":  # the version is too old
                        break
                    self._see(event["object"], event["type"] == "DELETED")
            except UNREACHABLE:
                self._stopped.wait(AGAIN)

    def _list(self) -> str:
        found = self._plane.call("GET", "/api/v1/pods")
        for uid in set(self._pods) - {pod["metadata"]["uid"] for pod in found["items"]}:
            self._pods[uid].delete(0)
        for pod in found["items"]:
            self._see(pod)
        return found["metadata"]["resourceVersion"]

    def _see(self, pod: Object, gone: bool = False) -> None:
        metadata, uid = pod["metadata"], pod["metadata"]["uid"]
        ends = gone or "deletionTimestamp" in metadata
        known = self._pods.get(uid)
        if known and ends:
            known.delete(0 if gone else metadata["deletionGracePeriodSeconds"])
        if known or gone or not pod["spec"].get("nodeName"):
            return
        if ends or (pod["status"]["phase"] == "Pending" and self.runs(pod)):
            self._pods[uid] = new = Pod(self.machine, pod)
            if ends:
                new.delete(0)
            new.start()

    def _log(self, namespace: str, name: str, container: str) -> Log:
        for pod in reversed(list(self._pods.values())):
            if (pod.namespace, pod.name) == (namespace, name):
                if pod.container["name"] != container:
                    raise Refusal(404, f'container "{container}" not found in pod "{name}"')
                if pod.log is None:
                    raise Refusal(400, f'container "{container}" in pod "{name}" is waiting to start: {pod.waits_for}')
                return pod.log
        raise Refusal(404, f'pod "{name}" does not exist')

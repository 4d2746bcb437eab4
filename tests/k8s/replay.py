"""The player that lives a recorded life again, on our API server."""

import io
import math
import threading
import time
from pathlib import Path

import pytest

from tests.k8s.controlplane.control_plane import ControlPlane
from tests.k8s.controlplane.log import Log, LogServer
from tests.k8s.objects import Objects
from tests.k8s.plane import Plane
from tests.k8s.rows import Rows
from tests.k8s.traces import Trace
from tests.pipelines.ports import free_ports


class Replay:
    """Plays a trace on a RayJob of ours, with its gaps divided by ``speed``, until the block ends.

    It waits for the RayJob to be created. Statuses are the recorded ones under our names, their times moved to now with
    the recorded gaps kept. What the recording client did is done too. The Pods are ours as far as the RayJob describes
    them, bound to a node that no kubelet has (by ``operator.played`` a kubelet leaves them alone); the Job is
    `managedBy` the player, so the real Job controller leaves it alone. After the last row nothing more happens, but
    that a RayJob which is deleted goes, as it does when a client deletes it before. ``log`` is what each Pod has
    written when it is first asked for; the API server gets it over TLS by ``certificates``.
    """

    def __init__(
        self,
        trace: Trace,
        plane: Plane,
        namespace: str,
        rayjob: str,
        speed: float = 20,
        log: str = "",
        certificates: Path | None = None,
    ) -> None:
        if not isinstance(plane, ControlPlane):
            pytest.skip("--kube-context: no recording is played where a real operator may run")
        self.trace, self.rayjob, self.speed, self.log, self.certificates = trace, rayjob, speed, log, certificates
        self.objects = Objects(plane, namespace)
        self.node = f"recorded-{namespace}"[:63].rstrip("-")
        self.ended = threading.Event()
        self._stop, self._error = threading.Event(), None
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)
        self._written: dict[str, Log] = {}
        self._asked = threading.Lock()

    rows: Rows
    _error: BaseException | None
    _logs: LogServer | None = None

    def __enter__(self) -> "Replay":
        self.objects.create("Node", {"metadata": {"name": self.node}, "spec": {"unschedulable": True}})
        self._serve_logs()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sweep()
        self.objects.delete("Node", self.node)
        if self._logs is not None:
            self._logs.close()
        if self._error is not None and error[0] is None:
            raise self._error

    def wait(self, seconds: float = 120) -> None:
        """Until the last row was played."""
        if not self.ended.wait(seconds):
            raise TimeoutError(f"{self.trace.scenario} was not played within {seconds} s")
        if self._error is not None:
            raise self._error

    def _serve_logs(self) -> None:
        if self.certificates is None:
            return
        (port,) = free_ports(1)
        self._logs = LogServer(port, self.certificates, self._log)
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        endpoints = {"kubeletEndpoint": {"Port": port}}
        self.objects.status("Node", self.node, {"addresses": addresses, "daemonEndpoints": endpoints})

    def _log(self, namespace: str, pod: str, container: str) -> Log:
        """One and the same each time: a line keeps its time stamp, by which a reader goes on where it was."""
        with self._asked:
            if pod not in self._written:
                self._written[pod] = Log()
                self._written[pod].drain(io.BytesIO(self.log.encode()))
            return self._written[pod]

    def _run(self) -> None:
        try:
            while (found := self.objects.get("RayJob", self.rayjob)) is None:
                if self._stop.wait(0.05):
                    return
            self.rows = Rows(self.objects, self.trace, found, self.node)
            began, first = time.monotonic(), self.trace.rows[0].t
            for row in self.trace.rows:
                if not self._paused(began + (row.t - first) / self.speed):
                    return
                self.rows.play(row)
            self.ended.set()
            self._paused(math.inf)
        except BaseException as error:
            self._error = error
        finally:
            self.ended.set()

    def _paused(self, due: float) -> bool:
        """Until ``due``; False if that is the end: the block's, or somebody deleted the RayJob though the recording did
        not, and the operator let it go."""
        while (left := due - time.monotonic()) > 0:
            if self._stop.wait(min(left, 0.1)):
                return False
            if not self.rows.deletes and (left > 0.1 or math.isinf(left)) and self._let_go():
                return False
        return True

    def _let_go(self) -> bool:
        found = self.objects.get("RayJob", self.rayjob)
        if found and "deletionTimestamp" not in found["metadata"]:
            return False
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Nothing that was played is held back: neither by the operator's finalizer nor for want of a kubelet."""
        self.objects.finalizers("RayJob", self.rayjob, [])
        for pod in self.objects.all("Pod"):
            if pod["spec"].get("nodeName") == self.node or pod["spec"]["schedulerName"] == "recorded":
                self.objects.delete("Pod", pod["metadata"]["name"], grace=0)

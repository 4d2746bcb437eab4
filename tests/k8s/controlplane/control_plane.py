"""A control plane of our own: etcd, kube-apiserver, kube-controller-manager and kube-scheduler as processes."""

import base64
import json
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import urllib3
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from kubernetes.client import ApiException

from tests.k8s.plane import Object, Plane, kubeconfig, until

HOST = "127.0.0.1"
LEEWAY = 60
"""Seconds for which the API server still takes an expired token: go-jose's ``jwt.DefaultLeeway``."""
MACHINE = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"}
PORTS = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections: none of them takes ours while the API server is stopped."""
TIED = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
"""Before a command: it ends with us, even if we are killed (Linux)."""


class ControlPlane(Plane):
    def __init__(self, folder: Path, binaries: Path, etcd: str) -> None:
        """Started, in ``folder``, where its logs are. ``stop`` ends it."""
        self.folder, self.binaries = folder, binaries
        self.certificates, self.config = folder / "certificates", folder / "admin.kubeconfig"
        self.etcd_port, self.peer_port, self.port, self.kubelet_port = _ports(4)
        self.signing_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._launcher = ThreadPoolExecutor(1)  # one that stays: a process so tied ends with the thread that made it
        try:
            self._start_etcd(etcd)
            token = self._write_keys()
            self._launch_api()
            self._await("kube-apiserver", (self.certificates / "apiserver.key").exists)  # it makes a pair, the key last
            authority = base64.b64encode((self.certificates / "apiserver.crt").read_bytes()).decode()
            cluster = {"server": f"https://{HOST}:{self.port}", "certificate-authority-data": authority}
            self.config.write_text(kubeconfig(cluster, token))
            super().__init__(self.config)
            self._await("kube-apiserver", self._ready)
            self._start_controllers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for name in reversed(list(self._processes)):
            self._end(name)
        self._launcher.shutdown()

    def stop_api(self) -> None:
        """As a crash: what is connected is cut. All objects stay, in etcd."""
        self._end("kube-apiserver")

    def start_api(self) -> None:
        """At the same port, with the same certificate; nothing if it runs."""
        if "kube-apiserver" not in self._processes:
            self._launch_api()
        self._await("kube-apiserver", self._ready)

    def node(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        taints: Iterable[Mapping[str, str]] = (),
        allocatable: Mapping[str, str] | None = None,
    ) -> Object:
        """One that is Ready and stays so, as nothing here listens for its heartbeat; a ``Kubelet`` runs its pods."""
        self.nodes.add(name)
        usual = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        offered = MACHINE | dict(allocatable or {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "made up for a test"}
        status = {
            "capacity": offered,
            "allocatable": offered,
            "addresses": [{"type": "InternalIP", "address": HOST}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet_port}},
            "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
        }
        metadata = {"name": name, "labels": usual | dict(labels or {})}
        body = {"metadata": metadata, "spec": {"taints": list(taints)}, "status": status}
        return self.call("POST", "/api/v1/nodes", body)

    def shortened(self, token: str, seconds: int) -> str:
        """The same token, by the API server's own key, but for its end."""
        header, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        claims["exp"] = int(time.time()) + seconds - LEEWAY
        signed = f"{header}.{_base64(json.dumps(claims).encode())}"
        return f"{signed}.{_base64(self.signing_key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def _write_keys(self) -> str:
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        private = self.signing_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / "service-accounts.key").write_bytes(private)
        return token

    def _start_etcd(self, etcd: str) -> None:
        clients, peers = (f"http://{HOST}:{port}" for port in (self.etcd_port, self.peer_port))
        flags = {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
            "unsafe-no-fsync": "true",
        }
        self._launch("etcd", etcd, flags)
        self._await("etcd", lambda: _answers(f"{clients}/health"))

    def _launch_api(self) -> None:
        key = self.folder / "service-accounts.key"
        flags = {
            "etcd-servers": f"http://{HOST}:{self.etcd_port}",
            "bind-address": HOST,
            "secure-port": self.port,
            "cert-dir": self.certificates,
            "token-auth-file": self.folder / "tokens.csv",
            "anonymous-auth": "false",
            "authorization-mode": "RBAC",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-cluster-ip-range": "10.0.0.0/24",
            "allow-privileged": "true",
            # It taints a new node as not ready until the node lifecycle controller, which we leave out, has seen it.
            "disable-admission-plugins": "TaintNodesByCondition",
        }
        self._launch("kube-apiserver", self.binaries / "kube-apiserver", flags)

    def _start_controllers(self) -> None:
        common = {"kubeconfig": self.config, "leader-elect": "false", "secure-port": 0}
        flags = {
            "controllers": "*,-node-lifecycle-controller",  # it would find our nodes silent, and evict their pods
            "service-account-private-key-file": self.folder / "service-accounts.key",
            "root-ca-file": self.certificates / "apiserver.crt",
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        }
        self._launch("kube-controller-manager", self.binaries / "kube-controller-manager", {**common, **flags})
        self._launch("kube-scheduler", self.binaries / "kube-scheduler", common)
        self._await("kube-controller-manager", self._has_a_service_account)

    def _ready(self) -> bool:
        try:
            return self.open("GET", "/readyz", content="text/plain").data == b"ok"
        except (ApiException, urllib3.exceptions.HTTPError):
            return False

    def _has_a_service_account(self) -> bool:
        return bool(self.call("GET", self.path("v1", "ServiceAccount", "default"))["items"])

    def _launch(self, name: str, program: Path | str, flags: Mapping[str, object]) -> None:
        command = [*TIED, str(program), *(f"--{flag}={value}" for flag, value in flags.items())]
        with open(self.folder / f"{name}.log", "ab") as log:

            def start() -> subprocess.Popen[bytes]:
                return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

            self._processes[name] = self._launcher.submit(start).result()

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        def looked() -> bool:
            said = self.folder / f"{name}.log"
            assert self._processes[name].poll() is None, f"{name} has ended:\n{said.read_text()[-3000:]}"
            return ready()

        until(looked, 120)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()


def _ports(count: int) -> list[int]:
    """Not drawn by ``random`` itself: processes of one test run seed it alike."""
    candidates, found = random.SystemRandom().sample(PORTS, 100), list[int]()
    while len(found) < count:
        with suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, candidates.pop()))
            found.append(probe.getsockname()[1])
    return found


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=2).status == 200
    except urllib3.exceptions.HTTPError:
        return False

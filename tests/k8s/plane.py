"""A Kubernetes cluster as the tests see it: any that a kubeconfig leads to. ``controlplane`` starts one."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from kubernetes import config
from kubernetes.client import ApiException
from urllib3 import BaseHTTPResponse

Object = dict[str, Any]
Found = TypeVar("Found")
JSON, MERGE, STRATEGIC, APPLY = (
    f"application/{kind}" for kind in ("json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)
SHORTEST = 600
"""Seconds: the API grants no token for less."""


def until(check: Callable[[], Found], seconds: float = 60) -> Found:
    """What ``check`` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: it is still {found!r}"
        time.sleep(0.05)
    return found


def events(response: BaseHTTPResponse) -> Iterator[Object]:
    """The events of a watch, until its stream ends."""
    rest = b""
    for piece in response.stream(amt=None, decode_content=False):
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, filter(None, lines))


class Plane:
    """The cluster of ``kubeconfig``, which belongs to its administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.api = config.new_client_from_config(str(kubeconfig))
        self.nodes: set[str] = set()
        """The names of those made up."""
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    @classmethod
    def of_context(cls, name: str, folder: Path) -> "Plane":
        if not (kubectl := shutil.which("kubectl")):
            raise RuntimeError(f"--kube-context {name}: kubectl is not on PATH; it reads the context")
        command = [kubectl, "config", "view", "--raw", "--minify", "--flatten", "--context", name]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(f"--kube-context {name}: {found.stderr.strip()}; kubectl config get-contexts lists them")
        path = folder / "context.kubeconfig"
        path.write_text(found.stdout)
        return cls(path)

    def open(self, method: str, path: str, body: Any = None, content: str = JSON, **query: Any) -> BaseHTTPResponse:
        """The response, of which nothing is read yet; ``ApiException`` for a refusal."""
        headers, token = {"Accept": JSON, "Content-Type": content}, ["BearerToken"]
        request = self.api.param_serialize(method, path, {}, list(query.items()), headers, body, auth_settings=token)
        answer = self.api.call_api(*request)
        if answer.status >= 400:
            raise ApiException.from_response(http_resp=answer, body=answer.read().decode(), data=None)
        return answer.response

    def call(self, method: str, path: str, body: Any = None, content: str = JSON, **query: Any) -> Object:
        return json.loads(self.open(method, path, body, content, **query).data)

    def path(self, version: str, kind: str, namespace: str = "", name: str = "") -> str:
        """Where objects of a kind are; ``ApiException`` (404) or ``KeyError`` for what this cluster does not serve."""
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self._kinds:
            for resource in self.call("GET", root)["resources"]:
                if "/" not in resource["name"]:
                    self._kinds[version, resource["kind"]] = resource["name"], resource["namespaced"]
        plural, namespaced = self._kinds[version, kind]
        place = f"namespaces/{namespace}" if namespaced and namespace else ""
        return "/".join(filter(None, (root, place, plural, name)))

    def apply(self, objects: Iterable[Mapping[str, Any]], namespace: str = "default", **query: Any) -> list[Object]:
        """Server-side apply, where an unknown field is an error; ``dryRun="All"`` only asks."""
        query = {"fieldManager": "holdfast-tests", "fieldValidation": "Strict", "force": "true", **query}
        applied = []
        for each in objects:
            metadata = each["metadata"]
            path = self.path(each["apiVersion"], each["kind"], metadata.get("namespace", namespace), metadata["name"])
            applied.append(self.call("PATCH", path, dict(each), APPLY, **query))
        return applied

    def kubeconfig_for(
        self, namespace: str, service_account: str, seconds: int | None = None, path: Path | None = None
    ) -> Path:
        """One that holds a token of a service account; the same call again renews it in place.

        ``seconds`` below 600 make a token that the API server finds expired after that time: on a cluster of ours only,
        and up to 10 s later, as it remembers a token it has accepted for as long.
        """
        place = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        spec = {"expirationSeconds": max(seconds or 3600, SHORTEST)}
        token = self.call("POST", place, {"spec": spec})["status"]["token"]
        if seconds and seconds < SHORTEST:
            token = self.shortened(token, seconds)
        path = path or self.kubeconfig.parent / f"{namespace}.{service_account}.kubeconfig"
        return self.write_kubeconfig(path, token, namespace)

    def write_kubeconfig(self, path: Path, token: str, namespace: str = "default") -> Path:
        cluster = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        new = path.with_suffix(".new")
        new.write_text(kubeconfig(cluster, token, namespace))
        return new.replace(path)

    def fire(self, namespace: str, name: str, last: timedelta = timedelta(hours=25)) -> None:
        """Have the controller manager run a CronJob at once: by its status it last ran long ago, so it has missed a
        tick and is due, as after an outage. The newest tick must lie within ``startingDeadlineSeconds``."""
        path = self.path("batch/v1", "CronJob", namespace, name)
        then = (datetime.now(UTC) - last).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.call("PATCH", f"{path}/status", {"status": {"lastScheduleTime": then}}, MERGE)

    def node(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        taints: Iterable[Mapping[str, str]] = (),
        allocatable: Mapping[str, str] | None = None,
    ) -> Object:
        pytest.skip("--kube-context: no made-up nodes in a cluster that is not ours")

    def shortened(self, token: str, seconds: int) -> str:
        pytest.skip(f"--kube-context: a cluster that is not ours grants no token for {seconds} s, but {SHORTEST}")

    def stop_api(self) -> None:
        pytest.skip("--kube-context: the API server of a cluster that is not ours is not stopped")

    def start_api(self) -> None:
        pytest.skip("--kube-context: the API server of a cluster that is not ours is not started")


def kubeconfig(cluster: Object, token: str, namespace: str = "default") -> str:
    """JSON is YAML."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": namespace}}],
        }
    )

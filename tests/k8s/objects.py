"""The objects of a namespace, as a controller deals with them."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from tests.k8s.plane import JSON, Object, Plane

JSON_PATCH = "application/json-patch+json"
GROUPS = {"RayJob": "ray.io/v1", "RayCluster": "ray.io/v1", "Job": "batch/v1", "Pod": "v1", "Event": "v1", "Node": "v1"}
PATIENCE = 120
"""Seconds for which an API server may be away."""


class Objects:
    """The objects of a namespace by kind and name. An API server that is away is waited for, as controllers do."""

    def __init__(self, plane: Plane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace

    def _call(self, method: str, kind: str, path: str = "", body: Any = None, **query: Any) -> Object:
        content = JSON_PATCH if method == "PATCH" else JSON
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                place = self.plane.path(GROUPS[kind], kind, "" if kind == "Node" else self.namespace)
                return self.plane.call(method, f"{place}{path}", body, content, **query)
            except (HTTPError, ApiException) as error:
                refused = isinstance(error, ApiException) and error.status not in (429, 500, 503, 504)
                if refused or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def get(self, kind: str, name: str) -> Object | None:
        with allowing(404):
            return self._call("GET", kind, f"/{name}")
        return None

    def all(self, kind: str, labels: str = "") -> list[Object]:
        return self._call("GET", kind, labelSelector=labels)["items"]

    def create(self, kind: str, body: Object) -> Object:
        """What is there already, from a call whose answer was lost, is as good as created: if it has the same owner."""
        whole = {"apiVersion": GROUPS[kind], "kind": kind, **body}
        try:
            return self._call("POST", kind, body=whole)
        except ApiException as refusal:
            found = self.get(kind, body["metadata"]["name"]) if refusal.status == 409 else None
            owners = body["metadata"].get("ownerReferences")
            if found is None or (owners and found["metadata"].get("ownerReferences") != owners):
                raise
            return found

    def patch(self, kind: str, name: str, changes: list[Object], part: str = "") -> None:
        """A JSON patch, which unlike a merge patch leaves nothing of an old value; none where the object is gone."""
        with allowing(404):
            self._call("PATCH", kind, f"/{name}{part}", changes)

    def status(self, kind: str, name: str, status: Object) -> None:
        self.patch(kind, name, [{"op": "add", "path": "/status", "value": status}], "/status")

    def finalizers(self, kind: str, name: str, finalizers: list[str]) -> None:
        self.patch(kind, name, [{"op": "add", "path": "/metadata/finalizers", "value": finalizers}])

    def bind(self, pod: str, node: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}
        with allowing(404, 409):
            self._call("POST", "Pod", f"/{pod}/binding", body)

    def delete(self, kind: str, name: str, grace: int | None = None) -> None:
        options: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        with allowing(404):
            self._call("DELETE", kind, f"/{name}", options)

    def event(self, about: Object, kind: str, reason: str, message: str, warning: bool = False) -> None:
        name, when = about["metadata"]["name"], now()
        involved = {"apiVersion": GROUPS[kind], "kind": kind, "name": name, "namespace": self.namespace}
        body: Object = {
            "metadata": {"name": f"{name}.{secrets.token_hex(8)}"},
            "reason": reason,
            "message": message[:1024],
        }
        body["involvedObject"] = {**involved, "uid": about["metadata"]["uid"]}
        body |= {"type": "Warning" if warning else "Normal", "firstTimestamp": when, "lastTimestamp": when, "count": 1}
        self.create("Event", {**body, "source": {"component": "rayjob-controller"}})


@contextmanager
def allowing(*codes: int) -> Iterator[None]:
    """Refusals with these codes are as good as done."""
    try:
        yield
    except ApiException as refusal:
        if refusal.status not in codes:
            raise


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def owned(owner: Object, kind: str) -> list[Object]:
    about = {
        "apiVersion": GROUPS[kind],
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return [{**about, "controller": True, "blockOwnerDeletion": True}]


def suffixed(name: str) -> str:
    return f"{name}-{''.join(secrets.choice('bcdfghjklmnpqrstvwxz2456789') for _ in range(5))}"

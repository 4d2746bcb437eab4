"""A RayJob as a client sees it: what a watch of it tells from its creation on."""

from typing import Any

from tests.k8s.plane import Object, Plane, events, until

CONTAINER = {
    "name": "ray",
    "image": "registry.test/holdfast:1",
    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
}


def rayjob(name: str, entrypoint: str = "true", **spec: Any) -> Object:
    pod = {"template": {"spec": {"containers": [CONTAINER]}}}
    worker = {**pod, "groupName": "pool", "replicas": 1, "minReplicas": 1, "maxReplicas": 1, "rayStartParams": {}}
    cluster = {"headGroupSpec": {**pod, "rayStartParams": {}}, "workerGroupSpecs": [worker]}
    whole = {"entrypoint": entrypoint, "shutdownAfterJobFinishes": True, "rayClusterSpec": cluster, **spec}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": whole}


class Life:
    """A RayJob in a namespace, and all that a watch of it tells."""

    def __init__(self, plane: Plane, namespace: str, body: Object) -> None:
        self.plane, self.namespace, self.name = plane, namespace, body["metadata"]["name"]
        self.place = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self.created = plane.call("POST", self.place, body)

    @property
    def now(self) -> Object | None:
        items = self.plane.call("GET", self.place, fieldSelector=f"metadata.name={self.name}")["items"]
        return items[0] if items else None

    @property
    def status(self) -> Object:
        return (self.now or {}).get("status") or {}

    def watched(self) -> list[Object]:
        """Its events until now."""
        found, last = [], self.now
        version = self.created["metadata"]["resourceVersion"]
        selector = f"metadata.name={self.name}"
        stream = self.plane.open(
            "GET", self.place, watch="true", resourceVersion=version, fieldSelector=selector, timeoutSeconds=60
        )
        for event in events(stream):
            assert event["type"] != "ERROR", event["object"]["message"]
            found.append(event)
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] == "DELETED" or (last and version == last["metadata"]["resourceVersion"]):
                break
        stream.release_conn()
        return found

    @property
    def statuses(self) -> list[Object]:
        return [{}, *(event["object"].get("status") or {} for event in self.watched())]

    def patch(self, **spec: Any) -> None:
        self.plane.call("PATCH", f"{self.place}/{self.name}", {"spec": spec}, "application/merge-patch+json")

    def delete(self) -> None:
        self.plane.call("DELETE", f"{self.place}/{self.name}", {"propagationPolicy": "Background"})

    def until(self, *states: str, status: str = "") -> Object:
        def there() -> Object:
            found = self.status
            right = found.get("jobDeploymentStatus") in states and (not status or found.get("jobStatus") == status)
            return found if right else {}

        return until(there, 150)

    def objects(self, path: str, labels: str = "") -> list[Object]:
        root = "/apis/batch/v1" if path == "jobs" else "/api/v1"
        return self.plane.call("GET", f"{root}/namespaces/{self.namespace}/{path}", labelSelector=labels)["items"]

    @property
    def pods(self) -> list[Object]:
        """Of its RayClusters."""
        whole = [(pod["metadata"].get("labels", {}).get("ray.io/cluster", ""), pod) for pod in self.objects("pods")]
        return [pod for cluster, pod in whole if cluster.startswith(f"{self.name}-")]

    def log(self, pod: str, **query: str) -> str:
        place = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        return self.plane.open("GET", place, content="text/plain", **query).data.decode()

"""Pods as we render them: let in where the restricted standard holds, and placed by the real scheduler on their pool's
nodes, and on no other."""

from typing import Any

import pytest

from k8s import job as jobs
from k8s import pools, rayjob
from k8s.settings import Settings
from k8s.state import hindrance
from tests.k8s.cluster import nodes
from tests.k8s.plane import Object, Plane, until
from tests.k8s.test_chart import restricted

IMAGE = "registry.example/holdfast:1"


@pytest.fixture
def namespace(plane: Plane, namespace: str) -> str:
    """One that takes no pod which the restricted standard forbids."""
    restricted(plane, namespace)
    return namespace


def rendered(pool: str, workers: int) -> tuple[Object, list[Object]]:
    """Head and workers of a job, as pods that KubeRay would make of its templates."""
    settings = Settings(image=IMAGE, pool=pool)
    body = rayjob.rayjob(settings, jobs.make(settings, ("train", "recipe=x", f"workers={workers}")))
    cluster = body["spec"]["rayClusterSpec"]
    group = cluster["workerGroupSpecs"][0]
    head = pod("head", cluster["headGroupSpec"]["template"])
    return head, [pod(f"worker-{i}", group["template"]) for i in range(group["replicas"])]


def pod(name: str, template: Object) -> Object:
    metadata = {**template["metadata"], "name": name}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**template["spec"], "serviceAccountName": "default"},
    }


def placed(plane: Plane, namespace: str, pods: list[Object]) -> dict[str, Object]:
    """Once the scheduler has decided on each."""

    def decided(each: Object) -> bool:
        found = plane.call("GET", plane.path("v1", "Pod", namespace, each["metadata"]["name"]))
        return any(condition["type"] == "PodScheduled" for condition in found.get("status", {}).get("conditions", ()))

    until(lambda: all(decided(each) for each in pods))
    found = plane.call("GET", plane.path("v1", "Pod", namespace))["items"]
    return {each["metadata"]["name"]: each for each in found}


@pytest.fixture
def every_pool(plane: Plane) -> dict[str, list[str]]:
    """A node of each pool, two of some; and one of nobody's."""
    made = {name: nodes(plane, name, 2 if name in ("a100-8", "cpu") else 1) for name in pools.names()}
    plane.node("other", {}, [], {"cpu": "64", "memory": "512Gi", "pods": "50", pools.GPU: "8"})
    return made


@pytest.mark.parametrize("name", sorted(set(pools.names()) - {"head"}))
def test_head_and_workers_stand_on_their_pools(
    plane: Plane, namespace: str, every_pool: dict[str, list[str]], name: str
) -> None:
    head, workers = rendered(name, max(1, pools.load(name).gpus))
    plane.apply([head, *workers], namespace)
    found = placed(plane, namespace, [head, *workers])
    assert found["head"]["spec"].get("nodeName") in every_pool["head"], found["head"]["status"]
    for worker in workers:
        assert found[worker["metadata"]["name"]]["spec"].get("nodeName") in every_pool[name]


def test_a_pod_of_nobodys_stays_off_gpu_nodes(plane: Plane, namespace: str) -> None:
    nodes(plane, "l4-spot")
    container = {"name": "x", "image": "x", "resources": {"requests": {"cpu": "1"}}}
    container["securityContext"] = rayjob.container_security()
    stray: dict[str, Any] = {"containers": [container], "securityContext": rayjob.pod_security()}
    plane.apply([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray"}, "spec": stray}], namespace)
    found = placed(plane, namespace, [{"metadata": {"name": "stray"}}])
    assert "nodeName" not in found["stray"]["spec"]


def test_without_room_a_worker_waits_and_says_which_pool_is_full(plane: Plane, namespace: str) -> None:
    nodes(plane, "head")
    nodes(plane, "a10g-4")
    head, workers = rendered("a10g-4", 8)
    assert len(workers) == 2
    plane.apply([head, *workers], namespace)
    found = placed(plane, namespace, workers)
    waiting = [each for each in found.values() if "nodeName" not in each["spec"]]
    assert len(waiting) == 1, "one of the two has room"
    why, hopeless = hindrance(waiting, "?")
    assert why.startswith("no node of pool a10g-4 has 4 free GPUs (0/2 nodes are available")
    assert not hopeless


def test_workers_with_a_topology_stay_together(plane: Plane, namespace: str, every_pool: dict[str, list[str]]) -> None:
    """Two nodes of the pool in each of two zones: two workers take those of one."""
    pool = pools.load("a100-8")
    room = {"cpu": "94", "memory": "1100Gi", "pods": "50", pools.GPU: "8", pools.EFA: "4"}
    labels = {**pool.selector, "topology.kubernetes.io/zone": "zone-b"}
    for name in ("far-0", "far-1"):
        plane.node(name, labels, [dict(taint) for taint in pool.taints], room)
    head, workers = rendered("a100-8", 16)
    plane.apply([head], namespace)  # in a zone of its own: it does not bind the workers
    plane.node("head-far", {pools.LABEL: "head", "topology.kubernetes.io/zone": "zone-c"}, [], {"cpu": "0"})
    placed(plane, namespace, [head])
    plane.apply(workers, namespace)
    found = placed(plane, namespace, workers)
    taken = {found[each["metadata"]["name"]]["spec"]["nodeName"] for each in workers}
    assert taken in ({"far-0", "far-1"}, {"a100-8-0", "a100-8-1"})

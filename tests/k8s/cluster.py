"""A cluster as it is before the first job: control plane, custom resources, accounts of the chart, nodes of pools."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml
from kubernetes.client import ApiException

from k8s import pools, schedule
from k8s.settings import Settings
from tests.k8s.controlplane.control_plane import ControlPlane
from tests.k8s.plane import Object, Plane, until

HERE = Path(__file__).parent
SCHEMAS = HERE.parents[1].parent / "shared" / "schemas"
LEASES = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]


def start(folder: Path) -> ControlPlane:
    """One of our own.  Errors: ``FileNotFoundError`` for what this machine lacks, and how it is had."""
    version = re.search(r"k8s\.io/kubernetes (v\S+)", (HERE / "controlplane" / "go.mod").read_text())
    assert version
    cache = Path(os.environ.get("HOLDFAST_TOOLS", Path.home() / ".cache" / "holdfast"))
    binaries = cache / "kubernetes" / version[1]
    if not binaries.is_dir():
        raise FileNotFoundError(
            f"no control plane in {binaries}: tests/k8s/controlplane/build makes it, in some minutes, once"
        )
    if not (etcd := shutil.which("etcd")):
        raise FileNotFoundError("no etcd on PATH: apt install etcd-server")
    return ControlPlane(folder, binaries, etcd)


def definitions() -> list[Object]:
    """The CustomResourceDefinitions of KubeRay, Kueue and Karpenter, as their projects publish them."""
    return [yaml.load(path.read_text(), yaml.CSafeLoader) for path in sorted(SCHEMAS.glob("*/*.yaml"))]


def install(plane: Plane, objects: Sequence[Object]) -> None:
    for each in objects:  # not applied: that took twice the time
        plane.call("POST", plane.path("apiextensions.k8s.io/v1", "CustomResourceDefinition"), each)
    until(lambda: len(served(plane, objects)) == len(objects), 180)


def served(plane: Plane, definitions: Sequence[Object]) -> list[str]:
    """The names of those that the cluster knows."""
    return [each["metadata"]["name"] for each in definitions if _serves(plane, each["spec"])]


def _serves(plane: Plane, spec: Object) -> bool:
    try:
        for version in spec["versions"]:
            if version["served"]:
                plane.path(f"{spec['group']}/{version['name']}", spec["names"]["kind"])
    except (ApiException, KeyError):
        return False
    return True


def accounts(plane: Plane, namespace: str, secrets: Sequence[str] = ()) -> Path:
    """`holdfast-submit` and `holdfast-job`, each with its rights and no other; the former's kube config."""
    rights = {"holdfast-submit": schedule.rules(Settings(secrets=tuple(secrets))), "holdfast-job": LEASES}
    for name, rules in rights.items():
        metadata = {"name": name, "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        subject = {"kind": "ServiceAccount", **metadata}
        role = {"apiGroup": group, "kind": "Role", "name": name}
        plane.apply(
            [
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
                {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
                {
                    "apiVersion": f"{group}/v1",
                    "kind": "RoleBinding",
                    "metadata": metadata,
                    "roleRef": role,
                    "subjects": [subject],
                },
            ],
            namespace,
        )
    return plane.kubeconfig_for(namespace, "holdfast-submit")


def nodes(plane: Plane, name: str, count: int = 1) -> list[str]:
    """Nodes of a pool, as large as the pool says they are."""
    pool = pools.load(name)
    room = {"cpu": f"{pool.cpus:g}", "memory": f"{pool.memory:g}Gi", "pods": "50", "ephemeral-storage": "100Gi"}
    if pool.gpus:
        room[pools.GPU] = str(pool.gpus)
    if pool.efa:
        room[pools.EFA] = str(pool.efa)
    labels = {**pool.selector, "topology.kubernetes.io/zone": "zone-a"}
    made = [f"{name}-{i}" for i in range(count)]
    for each in made:
        plane.node(each, labels, json.loads(json.dumps(list(pool.taints))), room)
    return made

"""What a cluster has before the first job: the accounts of the chart, and nodes of the pools."""

import json
from collections.abc import Sequence
from pathlib import Path

from k8s import pools, schedule
from k8s.settings import Settings
from tests.k8s.plane import Plane

LEASES = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]


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

"""A job's lease: who runs its command now, and how the command ended.

Kubernetes knows neither: an operator may start a command anew while the old head still lives out its grace, and reports
a job as failed that ended in it.  The lease is a ``coordination.k8s.io/v1`` Lease of the job's name, owned by the
RayJob, written by whoever runs the command (``k8s.once``) and read by whoever waits for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXIT, ENDED = "holdfast/exit-code", "holdfast/ended"
SECONDS = 120.0
"""A holder that has not renewed its lease for so long is dead.  It renews it every eighth of that, and gives up by
itself after half, so that it has ended before another begins."""


@dataclass(frozen=True)
class Record:
    """``exit_code``: of the command's last end, None while there is none."""

    exit_code: int | None
    holder: str | None


def read(lease: Mapping[str, Any] | None) -> Record | None:
    if lease is None:
        return None
    code = (lease["metadata"].get("annotations") or {}).get(EXIT)
    return Record(int(code) if code is not None else None, (lease.get("spec") or {}).get("holderIdentity") or None)


def lease(name: str, namespace: str, owner: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A new one, that nobody holds.  ``owner``: the RayJob, with which it is to go."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": "holdfast"}}
    if owner is not None:
        reference = {key: owner[key] for key in ("apiVersion", "kind")}
        metadata["ownerReferences"] = [{**reference, "name": name, "uid": owner["metadata"]["uid"]}]
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}

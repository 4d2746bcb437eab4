"""A command again and again: a CronJob that submits it, or, on request, KubeRay's own RayCronJob."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from k8s import job as jobs
from k8s import rayjob
from k8s.errors import Misuse
from k8s.settings import Settings

ACCOUNT = "holdfast-retrain"
LONGEST, LONGEST_RAY = 36, 36
"""Characters of the name: the controller adds 11 to that of each Job, and the RayJob takes it, of 47 at most."""
MOUNT = "/etc/holdfast"
HISTORY = {"successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3}
_FIELD = r"(\*|\d+(-\d+)?)(/\d+)?(,(\*|\d+(-\d+)?)(/\d+)?)*"
_CRON = re.compile(rf"{_FIELD}( {_FIELD}){{4}}|@(hourly|daily|weekly|monthly|yearly)")
RULES: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
    ("ray.io", ("rayjobs",), ("get", "list", "watch", "create", "delete")),
    ("", ("pods", "events"), ("list",)),
    ("", ("pods/log",), ("get",)),
    ("coordination.k8s.io", ("leases",), ("get", "create", "update", "delete")),
    ("kueue.x-k8s.io", ("localqueues",), ("get", "list")),
    ("kueue.x-k8s.io", ("workloads",), ("list",)),
)
"""What whoever submits may do in the namespace, and nothing else; of Secrets it may see the named ones."""


def cronjob(settings: Settings, command: Sequence[str], schedule: str, time_zone: str) -> list[dict[str, Any]]:
    """ConfigMap, ServiceAccount, Role, RoleBinding and CronJob.

    Each Job's pod submits the command under the Job's own name, which holds the minute it was due: so that one which is
    tried again follows what it had begun.  Errors: ``Misuse`` for a schedule that is none, and what ``submit`` refuses.
    """
    _check(schedule)
    job = jobs.make(settings, command)
    name = settings.name or job.name[:LONGEST].rstrip("-")
    jobs.check(name, LONGEST)
    rayjob.rayjob(settings, job)  # what it would refuse at night is refused now
    metadata = {"name": name, "labels": rayjob.MANAGED}
    if settings.namespace:
        metadata["namespace"] = settings.namespace
    args = ["submit", f"cluster={MOUNT}/cluster.yaml", "name=$(JOB)", "--", *command]
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": ACCOUNT,
        "securityContext": rayjob.pod_security(),
        "volumes": [{"name": "cluster", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}],
        "containers": [
            {
                "name": "submit",
                "image": rayjob.image(settings),
                "command": ["holdfast"],
                "args": args,
                "env": [
                    {"name": "HOME", "value": "/tmp"},
                    {"name": "JOB", "valueFrom": _label("batch.kubernetes.io/job-name")},
                ],
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
                "securityContext": rayjob.container_security(),
                "volumeMounts": [{"name": "cluster", "mountPath": MOUNT}, {"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
    }
    minutes = settings.deadline_minutes * (settings.retries + 1) + settings.start_minutes
    spec = {
        "schedule": schedule,
        "timeZone": time_zone,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        **HISTORY,
        "jobTemplate": {
            "spec": {
                "backoffLimit": 3,
                # A refusal, a misuse, a stop end the same each time; a submitter that died follows what it had begun.
                "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": _codes(1, 2, 3, 5)}]},
                "activeDeadlineSeconds": round(60 * minutes),
                "template": {"metadata": {"labels": rayjob.MANAGED}, "spec": pod},
            }
        },
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"cluster.yaml": _cluster(settings)}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**metadata, "name": ACCOUNT}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules(settings)},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": settings.namespace or "default"}],
        },
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec},
    ]


def raycronjob(settings: Settings, command: Sequence[str], schedule: str, time_zone: str) -> list[dict[str, Any]]:
    """KubeRay's, behind its gate ``RayCronJob``: no submitter, but missed times are made up for one after another, two
    may run at once, and its children bear no label: Kueue sees them only in a namespace with a default queue."""
    _check(schedule)
    made = jobs.make(settings, command)
    name = settings.name or made.name[:LONGEST_RAY].rstrip("-")
    jobs.check(name, LONGEST_RAY)
    job = replace(made, name=name)
    spec = rayjob.rayjob(settings, job)["spec"]
    metadata = {"name": name, "labels": rayjob.labels(settings)}
    if settings.namespace:
        metadata["namespace"] = settings.namespace
    # Nobody knows the child's name beforehand: without its lease, the command runs under KubeRay's rules alone.
    spec["entrypoint"] = job.line
    body = {"schedule": schedule, "timeZone": time_zone, "jobTemplate": spec}
    return [{"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": metadata, "spec": body}]


def rules(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)} for group, resources, verbs in RULES
    ]
    if settings.secrets:
        secrets = {"resources": ["secrets"], "resourceNames": list(settings.secrets)}
        found.append({"apiGroups": [""], **secrets, "verbs": ["get"]})
    return found


def _check(schedule: str) -> None:
    if not _CRON.fullmatch(schedule):
        raise Misuse(f"schedule={schedule} is not a cron line: five fields, as in schedule='0 3 * * 1'")


def _cluster(settings: Settings) -> str:
    """What differs from the defaults, but for what each submission says itself."""
    plain: Mapping[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in vars(settings).items()
        if value != getattr(Settings(), key) and key not in ("cluster", "name", "context", "again")
    }
    return yaml.safe_dump(dict(plain), sort_keys=True)


def _label(name: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": f"metadata.labels['{name}']"}}


def _codes(*codes: int) -> dict[str, Any]:
    return {"containerName": "submit", "operator": "In", "values": list(codes)}

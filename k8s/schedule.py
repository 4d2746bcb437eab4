"""A command again and again: a CronJob that submits it, or, on request, KubeRay's own RayCronJob."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from k8s import job as jobs
from k8s import pools, rayjob
from k8s.errors import Misuse
from k8s.settings import Settings

LONGEST = 36
"""Characters of the name.  Each Job's has a minute more, 9, and its RayJob's two more again, 47 at most: under the
Job's own name KubeRay would take that for its submitter's Job.  KubeRay takes 36 for a RayCronJob too."""
MOUNT = "/etc/holdfast"
HISTORY = {"successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3}
_VALUE = r"(\d+|[A-Za-z]{3})"
_ONE = rf"(\*|{_VALUE}(-{_VALUE})?)(/\d+)?"
_FIELD = rf"{_ONE}(,{_ONE})*"
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
    """ConfigMap, ServiceAccount, Role and RoleBinding ``NAME-schedule``, and the CronJob ``NAME``.

    Each Job's pod submits the command under a name made of the Job's, which holds the minute it was due: so that one
    which is tried again follows what it had begun.  Errors: ``Misuse`` for a schedule that is none, and for what
    ``submit`` refuses.
    """
    _check(schedule)
    if not settings.namespace:
        raise Misuse("namespace is not set: an account and its rights belong to one; give namespace=NAME")
    job = jobs.make(settings, command)
    name = settings.name or job.name[:LONGEST].rstrip("-")
    jobs.check(name, LONGEST)
    rayjob.rayjob(settings, job)  # what it would refuse at night is refused now
    place = {"namespace": settings.namespace, "labels": rayjob.MANAGED}
    # Not the schedule's own name: one called `default` would give every pod of the namespace its rights.
    own = f"{name}-schedule"
    metadata = {"name": own, **place}
    args = ["submit", f"cluster={MOUNT}/cluster.yaml", "name=$(JOB)-r", "--", *command]
    data = _files(settings)
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": own,
        "securityContext": rayjob.pod_security(),
        "volumes": [{"name": "cluster", "configMap": _mounted(own, data)}, {"name": "tmp", "emptyDir": {}}],
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
                # A refusal, a misuse, a stop end the same each time; a submitter that died, or whose node is taken
                # away, is followed by one that finds what it had begun.
                "podFailurePolicy": {
                    "rules": [
                        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                        {"action": "FailJob", "onExitCodes": _codes(1, 2, 3, 5)},
                    ]
                },
                "activeDeadlineSeconds": round(60 * minutes),
                "template": {"metadata": {"labels": rayjob.MANAGED}, "spec": pod},
            }
        },
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules(settings)},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": own},
            "subjects": [{"kind": "ServiceAccount", "name": own, "namespace": settings.namespace}],
        },
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, **place}, "spec": spec},
    ]


def raycronjob(settings: Settings, command: Sequence[str], schedule: str, time_zone: str) -> list[dict[str, Any]]:
    """KubeRay's, behind its gate ``RayCronJob``: no submitter, but missed times are made up for one after another, two
    may run at once, and its children bear no label: Kueue sees them only in a namespace with a default queue."""
    _check(schedule)
    made = jobs.make(settings, command)
    name = settings.name or made.name[:LONGEST].rstrip("-")
    jobs.check(name, LONGEST)
    job = replace(made, name=name)
    spec = rayjob.rayjob(settings, job)["spec"]
    metadata = {"name": name, "labels": rayjob.labels(settings)}
    if settings.namespace:
        metadata["namespace"] = settings.namespace
    # Nobody knows the child's name beforehand: without its lease, the command runs under KubeRay's rules alone.
    spec |= {"entrypoint": job.line, "backoffLimit": 0}  # nor may a refusal be tried again
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


def _files(settings: Settings) -> dict[str, str]:
    """What the pod mounts: what differs from the defaults, but for what each submission says itself; its own pools."""
    plain: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in vars(settings).items()
        if value != getattr(Settings(), key) and key not in ("cluster", "name", "context", "again")
    }
    own: dict[str, str] = {}
    if settings.pools:
        plain["pools"] = f"{MOUNT}/pools"
        own = {
            f"{name}.yaml": pools.names(settings.pools)[name].read_text()
            for name in (settings.pool, settings.head_pool)
        }
    return {"cluster.yaml": yaml.safe_dump(plain, sort_keys=True), **own}


def _mounted(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    paths = {key: key if key == "cluster.yaml" else f"pools/{key}" for key in data}
    return {"name": name, "items": [{"key": key, "path": path} for key, path in paths.items()]}


def _label(name: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": f"metadata.labels['{name}']"}}


def _codes(*codes: int) -> dict[str, Any]:
    return {"containerName": "submit", "operator": "In", "values": list(codes)}

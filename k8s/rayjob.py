"""A job as the RayJob that KubeRay runs: the head on a safe node, the workers on their pool."""

import math
import shlex
from typing import Any

from k8s import job as jobs
from k8s import pools
from k8s.errors import Misuse
from k8s.job import Job
from k8s.pools import EFA, GPU, SPOT, Pool
from k8s.settings import Settings

RAY = "2.60.0"
MANAGED = {"app.kubernetes.io/name": "holdfast", "app.kubernetes.io/managed-by": "holdfast"}
COMMAND, INPUTS, LINE = "holdfast/command", "holdfast/inputs", "holdfast/line"
NAME, ROLE = "holdfast/job", "holdfast/role"
QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
METRICS = {"metrics": 8080, "as-metrics": 44217, "dash-metrics": 44227}
PORTS = {"gcs-server": 6379, "client": 10001, "dashboard": 8265, **METRICS}
"""Of the head, all of them: KubeRay makes a service of those declared, and adds others only where there are none."""
STAY = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
"""Neither autoscaler may move a training, or what submits it, to save a node."""
SHM_SHARE = 0.3
"""Of a pod's memory: Ray's object store takes as much, and NCCL and data loaders share it."""
DRAIN_MARGIN = 20
"""Seconds of the grace kept for Ray's own end, after its drain is over."""


def rayjob(settings: Settings, job: Job) -> dict[str, Any]:
    """Errors: ``Misuse`` for a pool that cannot hold the job, and an image without tag."""
    cluster = raycluster_spec(settings, jobs.workers(job.command), job.name)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": job.name,
            **({"namespace": settings.namespace} if settings.namespace else {}),
            "labels": {**labels(settings), COMMAND: job.digest, **_queue(settings)},
            "annotations": {INPUTS: job.inputs, LINE: job.line},
        },
        "spec": {
            "entrypoint": entrypoint(job),
            "submissionMode": "K8sJobMode",
            # A submitter that tried again would run the command a second time on a new head, unseen in the status.
            "submitterConfig": {"backoffLimit": 0},
            "submitterPodTemplate": _submitter(settings),
            "backoffLimit": settings.retries,
            "activeDeadlineSeconds": math.ceil(60 * settings.deadline_minutes),
            "preRunningDeadlineSeconds": math.ceil(60 * settings.start_minutes),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 0,
            "rayClusterSpec": cluster,
        },
    }


def entrypoint(job: Job) -> str:
    """The command, run once: see ``k8s.once``."""
    return shlex.join(["python", "-m", "k8s.once", job.name, "--", "holdfast", *job.command])


def raycluster(settings: Settings, name: str) -> dict[str, Any]:
    """A cluster that stays, for ``backend=ray``; its token is in a Secret that KubeRay makes, key ``auth_token``."""
    jobs.check(name, 53)
    spec = raycluster_spec(settings, settings.nodes or 1, name)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            **({"namespace": settings.namespace} if settings.namespace else {}),
            "labels": {**labels(settings), **_queue(settings)},
        },
        "spec": {**spec, "authOptions": {"mode": "token"}},
    }


def raycluster_spec(settings: Settings, workers: int, name: str) -> dict[str, Any]:
    head, pool = pools.load(settings.head_pool, settings.pools), pools.load(settings.pool, settings.pools)
    if head.capacity == SPOT:
        raise Misuse(
            f"head_pool={head.name} is a spot pool: with the head the driver and the whole job would go; take an "
            "on-demand pool"
        )
    if settings.head_cpus > head.cpus or settings.head_memory > head.memory:
        raise Misuse(
            f"head_cpus={settings.head_cpus:g}, head_memory={settings.head_memory:g}: a node of pool {head.name} "
            f"offers {head.cpus:g} and {head.memory:g} GiB; ask for less, or take a larger head_pool"
        )
    gpus, nodes = shape(settings, pool, workers)
    return {
        "rayVersion": RAY,
        "headGroupSpec": {
            # No work of Ray on the head: what dies there takes the job along.
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0", "num-gpus": "0"},
            "template": _template(settings, head, 0, name, head=True),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": nodes,
                "minReplicas": nodes,
                "maxReplicas": nodes,
                "rayStartParams": {},
                "template": _template(settings, pool, gpus, name, head=False),
            }
        ],
    }


def shape(settings: Settings, pool: Pool, workers: int) -> tuple[int, int]:
    """``(GPUs of a worker pod, worker pods)``.  Errors: ``Misuse`` for more than a node has."""
    gpus = pool.gpus if settings.gpus is None else settings.gpus
    if gpus and not pool.gpus:
        raise Misuse(f"gpus={gpus}: pool {pool.name} has none; take a GPU pool, or gpus=0")
    if gpus > pool.gpus:
        raise Misuse(
            f"gpus={gpus} is more than a node of pool {pool.name} has ({pool.gpus}); use more nodes, or another pool"
        )
    if pool.gpus and not gpus:
        raise Misuse(f"gpus=0 on pool {pool.name} would pay for GPUs and use none; take pool=cpu, or give gpus=1")
    slots = gpus or 1
    nodes = settings.nodes or math.ceil(workers / slots)
    if workers > nodes * slots:
        raise Misuse(
            f"workers={workers} of the command is more than nodes={nodes} with gpus={slots} hold ({nodes * slots}); "
            f"give nodes={math.ceil(workers / slots)}, or leave nodes out"
        )
    return gpus, nodes


def labels(settings: Settings) -> dict[str, str]:
    """For cost as for looking: they stand on the job and on its pods."""
    return {**MANAGED, pools.LABEL: settings.pool, **({"holdfast/team": settings.team} if settings.team else {})}


def _queue(settings: Settings) -> dict[str, str]:
    given = {QUEUE: settings.queue, PRIORITY: settings.priority}
    return {key: value for key, value in given.items() if value}


def image(settings: Settings) -> str:
    """Errors: ``Misuse`` for none, and for one that means another image tomorrow."""
    given = settings.image
    if not given:
        raise Misuse("image is not set: give image=REPOSITORY:TAG, in the cluster file for all jobs")
    tag = given.rpartition("/")[2]
    if ":" not in tag or tag.endswith(":latest"):
        raise Misuse(f"image={given} names no fixed image; add its tag (:1.2.3, not :latest) or digest (@sha256:…)")
    return given


def _template(settings: Settings, pool: Pool, gpus: int, name: str, head: bool) -> dict[str, Any]:
    cpus, memory = (settings.head_cpus, settings.head_memory) if head else pool.share(gpus)
    spot = pool.capacity == SPOT
    amount: dict[str, str] = {"cpu": f"{cpus:g}", "memory": f"{memory:g}Gi"}
    if gpus:
        amount[GPU] = str(gpus)
    if pool.efa and gpus == pool.gpus:
        amount[EFA] = str(pool.efa)
    container: dict[str, Any] = {
        "name": "ray-head" if head else "ray-worker",
        "image": image(settings),
        "env": _environment(settings, pool, name, spot, EFA in amount),
        "envFrom": [{"secretRef": {"name": secret}} for secret in settings.secrets],
        "resources": {"requests": amount, "limits": amount},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: dict[str, Any] = {
        "serviceAccountName": settings.service_account,  # the workers' too: it is who they are to AWS
        "automountServiceAccountToken": head,
        "containers": [container],
        "securityContext": pod_security(),
        "nodeSelector": pool.selector,
        "tolerations": pool.tolerations,
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{math.ceil(SHM_SHARE * memory)}Gi"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if head:
        container["ports"] = [{"name": name, "containerPort": port} for name, port in PORTS.items()]
    if spot:
        spec["terminationGracePeriodSeconds"] = pool.grace_seconds
    if pool.topology and not head:
        together = {"labelSelector": {"matchLabels": {NAME: name, ROLE: "worker"}}, "topologyKey": pool.topology}
        spec["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [together]}}
    own = {**labels(settings), pools.LABEL: pool.name, ROLE: "head" if head else "worker", NAME: name}
    return {"metadata": {"labels": own, "annotations": STAY}, "spec": spec}


def _environment(settings: Settings, pool: Pool, name: str, spot: bool, efa: bool) -> list[dict[str, str]]:
    found = {"HOME": "/tmp", "HOLDFAST_JOB": name, "HOLDFAST_POOL": settings.pool, "RAY_USAGE_STATS_ENABLED": "0"}
    if settings.tracking_uri:
        found["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    if settings.storage:
        found["HOLDFAST_STORAGE"] = settings.storage
    if spot:  # Ray's own default is 30 s, which is also Kubernetes': no time is left to save
        found["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(max(1, pool.grace_seconds - DRAIN_MARGIN))
    if efa:
        # Huge pages would have to be asked for, which Karpenter knows no node for.
        found |= {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_USE_HUGE_PAGE": "0"}
        found |= {"NCCL_DEBUG": "WARN"}
    return [{"name": key, "value": value} for key, value in {**found, **settings.env}.items()]


def pod_security() -> dict[str, Any]:
    """Of the Pod Security Standard ``restricted``."""
    return {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def _submitter(settings: Settings) -> dict[str, Any]:
    """The pod that hands the command to the head and shows its log."""
    head = pools.load(settings.head_pool, settings.pools)
    amount = {"cpu": "250m", "memory": "512Mi"}
    container: dict[str, Any] = {
        "name": "ray-job-submitter",
        "image": image(settings),
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": amount, "limits": {"memory": "2Gi"}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "metadata": {"labels": {**labels(settings), pools.LABEL: head.name, ROLE: "submitter"}, "annotations": STAY},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": pod_security(),
            "nodeSelector": head.selector,
            "tolerations": head.tolerations,
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "containers": [container],
        },
    }

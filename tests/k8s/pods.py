"""The statuses of the Pods of a RayCluster, which no kubelet runs, and of the RayCluster that they make."""

from tests.k8s.objects import now
from tests.k8s.plane import Object

NO_CLUSTER = {"desiredCPU": "0", "desiredGPU": "0", "desiredMemory": "0", "desiredTPU": "0", "head": {}}


def running(pod: Object) -> Object:
    when, kinds = now(), ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    containers = [
        {"name": each["name"], "image": each["image"], "imageID": "", "ready": True, "restartCount": 0}
        | {"state": {"running": {"startedAt": when}}}
        for each in pod["spec"]["containers"]
    ]
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": when} for kind in kinds]
    status = {"phase": "Running", "podIP": "127.0.0.1", "startTime": when, "conditions": conditions}
    return {**status, "containerStatuses": containers}


def unpulled(pod: Object, image: str) -> Object:
    """ErrImagePull and ImagePullBackOff take turns."""
    status = running(pod)
    before = pod["status"].get("containerStatuses", [{"state": {}}])[0]["state"].get("waiting", {})
    words = f'failed to pull image "{image}": not found'
    waiting = {"reason": "ErrImagePull", "message": words}
    if before.get("reason") == "ErrImagePull":
        waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}": ErrImagePull: {words}'}
    for each in status["containerStatuses"]:
        each |= {"ready": False, "state": {"waiting": waiting}}
    for each in status["conditions"][2:]:
        each |= {"status": "False", "reason": "ContainersNotReady"}
    return {**status, "phase": "Pending"}


def cluster_status(pods: list[Object], whole: int, before: Object) -> Object:
    """As much of a RayCluster's status as a client of RayJobs can see. ``ready`` stays once it was reached."""
    heads = [pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
    started = [
        pod for pod in pods if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    ready = any(pod in started for pod in heads)
    reason, message = ("HeadPodRunningAndReady", "") if ready else ("Unknown", "")
    for each in heads[0]["status"].get("containerStatuses", []) if heads and not ready else []:
        waiting = each["state"].get("waiting") or {}
        reason, message = waiting.get("reason", "ContainersNotReady"), waiting.get("message", "")
    condition = {"type": "HeadPodReady", "status": str(ready), "reason": reason, "message": message}
    (old,) = [each for each in before.get("conditions", []) if each["type"] == "HeadPodReady"] or [{}]
    condition["lastTransitionTime"] = old["lastTransitionTime"] if old.get("status") == str(ready) else now()
    status = {"conditions": [condition], "desiredWorkerReplicas": whole - 1, **NO_CLUSTER}
    status["readyWorkerReplicas"] = len([pod for pod in started if pod not in heads])
    if heads:
        status["head"] = {"podName": heads[0]["metadata"]["name"], "podIP": heads[0]["status"].get("podIP", "")}
    if len(started) >= whole or before.get("state") == "ready":
        status["state"] = "ready"
    return status

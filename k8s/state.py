"""How a job is, read from what the cluster says of it; pure.

A RayJob's own status misleads in ways that recordings of the real operator show: Complete may be a job that was
stopped, Failed one that had ended well, ``jobStatus`` stays RUNNING in a failed job, and the whole status vanishes for
a moment at each retry.  What the command itself left in its lease (see ``k8s.record``) is believed first.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from k8s.record import Record

OK, FAILURE, MISUSE, REFUSED, LOST, STOPPED = range(6)
WAITING, STARTING, RUNNING, ENDED = "waiting", "starting", "running", "ended"
WORDS = {
    OK: "succeeded",
    FAILURE: "failed",
    MISUSE: "refused as misuse",
    REFUSED: "refused by the gate",
    LOST: "lost",
    STOPPED: "stopped",
}

_LOST = ("SubmissionFailed", "JobStatusCheckTimeoutExceeded", "JobDeploymentStatusTransitionGracePeriodExceeded")
_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_BROKEN = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
UNSEEN_SECONDS = 60.0
_EXIT = re.compile(r"exit code (-?\d+)")


@dataclass(frozen=True)
class State:
    """``code``: the exit code once the job has ended, else None; ``exit_code``: the command's own, where it is known.

    ``reason``: one word; ``message``: for a person.  ``hopeless``: it will not start by waiting.
    """

    name: str
    phase: str
    reason: str = ""
    message: str = ""
    code: int | None = None
    exit_code: int | None = None
    hopeless: bool = False
    started: str | None = None
    line: str = ""

    def told(self) -> str:
        word = self.phase if self.code is None else WORDS[self.code]
        return ": ".join(part for part in (word, self.message) if part)


def ended(name: str, code: int, reason: str, message: str = "", exit_code: int | None = None, **more: Any) -> State:
    return State(name, ENDED, reason, message, code, exit_code, **more)


def of_exit(name: str, exit_code: int, message: str = "", **more: Any) -> State:
    """The end of a command that Holdfast's verbs would give: their codes are ours, any other is a failure."""
    code = exit_code if 0 <= exit_code <= STOPPED else FAILURE
    reason = {OK: "Succeeded", REFUSED: "Refused", MISUSE: "Misuse", STOPPED: "Stopped"}.get(code, "Failed")
    said = message or ("" if exit_code == OK else f"the command ended with exit code {exit_code}")
    return ended(name, code, reason, said, exit_code, **more)


def read(
    rayjob: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]],
    workloads: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    record: Record | None,
) -> State:
    """``pods``: of its Ray cluster and its submitter; ``workloads``: of Kueue; ``events``: warnings, while there are no
    pods; ``record``: what the command left."""
    metadata, status = rayjob["metadata"], rayjob.get("status") or {}
    name = metadata["name"]
    more = {"started": status.get("startTime"), "line": (metadata.get("annotations") or {}).get("holdfast/line", "")}
    deployment, reason = status.get("jobDeploymentStatus") or "", status.get("reason") or ""
    if metadata.get("deletionTimestamp"):
        return State(name, ENDED, "Deleted", "it is being deleted", STOPPED, **more)
    if deployment in ("Complete", "Failed", "ValidationFailed"):
        return _end(name, deployment, status, record, more)
    if deployment in ("Suspended", "Suspending") or rayjob["spec"].get("suspend"):
        return State(name, WAITING, "Suspended", _quota(rayjob, workloads), **more)
    if deployment == "Running" and status.get("jobStatus") in ("RUNNING", "SUCCEEDED", "FAILED", "STOPPED"):
        return State(name, RUNNING, "Running", "", **more)
    if deployment == "Retrying":
        return State(name, STARTING, "Retrying", f"trying again after {reason or 'a failure'}", **more)
    why, hopeless = hindrance(pods, str(_pool(rayjob)))
    if not pods and events:
        why = _first(max(events, key=_seen).get("message"))
    elif not status and _age(metadata) > UNSEEN_SECONDS:
        why, hopeless = "KubeRay's operator has not looked at it: is it running?", True
    return State(name, STARTING, deployment or "Created", why, hopeless=hopeless, **more)


def _end(
    name: str, deployment: str, status: Mapping[str, Any], record: Record | None, more: Mapping[str, Any]
) -> State:
    reason, message = status.get("reason") or deployment, _first(status.get("message"))
    known = record.exit_code if record else None
    if deployment == "ValidationFailed":
        return ended(name, MISUSE, reason, message, **more)
    if known == OK and (deployment == "Failed" or status.get("jobStatus") != "SUCCEEDED"):
        return of_exit(name, OK, f"the command had ended well, though KubeRay says {reason}", **more)
    if deployment == "Complete":
        if status.get("jobStatus") == "SUCCEEDED":
            return of_exit(name, OK if known is None else known, **more)
        if known in (MISUSE, REFUSED):
            return of_exit(name, known, **more)
        return ended(name, STOPPED, "Stopped", message, known, **more)
    if reason == "AppFailed":
        found = _EXIT.search(status.get("message") or "")
        code = known if known is not None else int(found.group(1)) if found else None
        if code is None:
            return ended(name, LOST, reason, f"{message}; its end is not known: the same command continues", **more)
        return of_exit(name, code or FAILURE, **more)
    if reason in _LOST:
        return ended(name, LOST, reason, f"{message}; the same command continues from the last checkpoint", **more)
    return ended(name, FAILURE, reason, message, known, **more)


def _age(metadata: Mapping[str, Any]) -> float:
    made = metadata.get("creationTimestamp")
    return (datetime.now(UTC) - datetime.fromisoformat(made)).total_seconds() if made else 0.0


def _seen(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def hindrance(pods: Sequence[Mapping[str, Any]], pool: str) -> tuple[str, bool]:
    """``(why they do not run, whether waiting is in vain)``, as only the pods themselves tell."""
    for pod in pods:
        status = pod.get("status") or {}
        for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _PULL:
                said = _first(waiting.get("message")) or waiting["reason"]
                return f"its image cannot be pulled ({said})", True
            if waiting.get("reason") in _BROKEN:
                return f"{waiting['reason']}: {_first(waiting.get('message'))}", True
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return _unscheduled(pod, condition.get("message") or "", pool), False
    return "", False


def _unscheduled(pod: Mapping[str, Any], message: str, pool: str) -> str:
    spec, own = pod.get("spec") or {}, (pod["metadata"].get("labels") or {}).get("holdfast/pool", pool)
    limits = ((spec.get("containers") or [{}])[0].get("resources") or {}).get("limits") or {}
    gpus = limits.get("nvidia.com/gpu")
    wanted = f"{gpus} free GPUs" if gpus else "enough free room"
    return f"no node of pool {own} has {wanted} ({_first(message)})"


def _quota(rayjob: Mapping[str, Any], workloads: Sequence[Mapping[str, Any]]) -> str:
    queue = (rayjob["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    if not queue:
        return "suspended; `kubectl patch rayjob` with spec.suspend=false lets it go on"
    for workload in workloads:
        for condition in (workload.get("status") or {}).get("conditions") or ():
            if condition["type"] == "QuotaReserved" and condition["status"] == "False":
                return f"waiting for quota of queue {queue} ({_first(condition.get('message'))})"
    return f"waiting for admission by queue {queue}"


def _pool(rayjob: Mapping[str, Any]) -> str:
    return (rayjob["metadata"].get("labels") or {}).get("holdfast/pool", "?")


def _first(text: str | None) -> str:
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")[:500]

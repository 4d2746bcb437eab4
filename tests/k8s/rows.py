"""The rows of a trace, written one by one as objects of ours beside a RayJob of ours."""

from datetime import datetime

from tests.k8s.objects import Objects
from tests.k8s.operator import adoption
from tests.k8s.plane import Object
from tests.k8s.traces import Names, Row, Trace

KINDS = ("RayJob", "RayCluster", "Job", "Pod", "Event")
UIDS = ("controller-uid", "batch.kubernetes.io/controller-uid")
CONTAINERS = {"head": "ray-head", "worker": "ray-worker", "submitter": "ray-job-submitter"}
# What a Pod takes over from the RayJob that is played; the rest might name what the namespace lacks, as an account.
OURS = ("containers", "volumes", "nodeSelector", "tolerations", "affinity", "securityContext")


class Rows:
    """For the RayJob ``found``; Pods are bound to ``node``."""

    def __init__(self, objects: Objects, trace: Trace, found: Object, node: str) -> None:
        self.objects, self.node, self.rayjob = objects, node, found["metadata"]["name"]
        self.deletes = False
        """Whether a row has said that the RayJob is deleted."""
        first = next(row for row in trace.rows if row.kind == "RayJob").object["metadata"]
        was, now = (datetime.fromisoformat(each["creationTimestamp"]) for each in (first, found["metadata"]))
        self._templates = templates(found["spec"])
        containers = {
            theirs: self._templates[role]["containers"][0]["name"]
            for role, theirs in CONTAINERS.items()
            if self._templates.get(role, {}).get("containers")
        }
        uids = {first["uid"]: found["metadata"]["uid"]}
        self.ours = Names(trace, objects.namespace, self.rayjob, now - was, uids, containers)
        self._adopted = "finalizers" in found["metadata"]
        self._written: dict[tuple[str, str], Object] = {}
        self._done: set[tuple[str, str]] = set()

    def play(self, row: Row) -> None:
        if row.kind == "Action":
            self._act(row.object)
        elif row.kind in KINDS:
            name, recorded = self.ours(row.name), self.ours(row.object)
            getattr(self, f"_{row.type.lower()}")(row.kind, name, recorded, row.object)

    def _act(self, action: Object) -> None:
        kind, name = action.get("kind", ""), self.ours(action.get("name", ""))
        if "patch" in action:
            ((key, value),) = action["patch"]["spec"].items()
            self.objects.patch("RayJob", name, [{"op": "add", "path": f"/spec/{key}", "value": value}])
            return
        if kind == "RayCronJob" and "accepted" not in action:
            kind, name = "RayJob", self.rayjob  # the recorded one went with its parent
        elif "propagationPolicy" not in action and action.get("role") not in ("head", "worker", "submitter"):
            return
        self.deletes |= kind == "RayJob"
        self.objects.delete(kind, name)

    def _added(self, kind: str, name: str, ours: Object, recorded: Object) -> None:
        if kind == "RayJob":
            return
        body: Object = {key: value for key, value in ours.items() if key not in ("metadata", "status")}
        kept = ("labels", "annotations", "ownerReferences")
        metadata = {key: value for key, value in ours["metadata"].items() if key in kept}
        if kind == "Event":
            body["involvedObject"]["namespace"] = self.objects.namespace
            body |= {"reportingInstance": "recorded"} if "eventTime" in body else {}
        if kind == "Pod":
            role = metadata["labels"].get("ray.io/node-type", "submitter")
            body["spec"] |= {"schedulerName": "recorded", "automountServiceAccountToken": False}
            body["spec"] |= self._templates.get(role, {})
        if kind == "Job":
            body["spec"]["managedBy"] = "holdfast.test/recorded"
            for label in (*UIDS, "job-name", "batch.kubernetes.io/job-name"):
                body["spec"]["template"]["metadata"]["labels"].pop(label)
        self._written.pop((kind, name), None)  # the Job of the second try has the name of the first
        made = self.objects.create(kind, {"metadata": {"name": name, **metadata}, **body})
        if "uid" in recorded["metadata"]:
            self.ours.uids[recorded["metadata"]["uid"]] = made["metadata"]["uid"]

    def _modified(self, kind: str, name: str, ours: Object, recorded: Object) -> None:
        if kind == "Event":
            kept = ("count", "lastTimestamp", "series")
            changes = [{"op": "add", "path": f"/{key}", "value": ours[key]} for key in kept if key in ours]
            self.objects.patch(kind, name, changes)
            return
        if kind == "RayJob" and "finalizers" in recorded["metadata"] and not self._adopted:
            self._adopted = True
            if found := self.objects.get(kind, name):
                self.objects.patch(kind, name, adoption(found))
        if kind == "Pod":
            self._pod(name, ours)
        if ours["status"] != self._written.get((kind, name), {}):
            self._written[kind, name] = ours["status"]
            self.objects.status(kind, name, ours["status"])

    def _pod(self, name: str, ours: Object) -> None:
        scheduled = [each for each in ours["status"].get("conditions", []) if each["type"] == "PodScheduled"]
        if scheduled and scheduled[0]["status"] == "True" and ("bound", name) not in self._done:
            self._done.add(("bound", name))
            self.objects.bind(name, self.node)
        if "deletionTimestamp" in ours["metadata"] and ("deleted", name) not in self._done:
            self._done.add(("deleted", name))
            self.objects.delete("Pod", name)

    def _deleted(self, kind: str, name: str, ours: Object, recorded: Object) -> None:
        if kind == "RayJob":
            self.objects.finalizers(kind, name, [])
        self.objects.delete(kind, name, grace=0 if kind == "Pod" else None)


def templates(spec: Object) -> dict[str, Object]:
    """By role, what our RayJob says of its Pods."""
    cluster = spec.get("rayClusterSpec") or {}
    found = {"head": cluster.get("headGroupSpec"), "worker": next(iter(cluster.get("workerGroupSpecs") or []), None)}
    pods = {role: group["template"].get("spec", {}) for role, group in found.items() if group}
    pods["submitter"] = (spec.get("submitterPodTemplate") or {}).get("spec", {})
    return {role: {key: pod[key] for key in OURS if key in pod} for role, pod in pods.items()}

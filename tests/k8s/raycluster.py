"""The operator's part for RayClusters: their Pods, which the real scheduler places, and one real Ray head for all."""

from collections.abc import Collection

from kubernetes.client import ApiException

from tests.k8s.head import Head
from tests.k8s.objects import Objects, owned, suffixed
from tests.k8s.plane import Object
from tests.k8s.pods import cluster_status, running, unpulled


class RayClusters:
    def __init__(self, objects: Objects, head: Head, absent_images: Collection[str]) -> None:
        self.objects, self.head, self.absent_images = objects, head, absent_images

    def look(self) -> None:
        """The kubelet's part for head and workers: those placed run if their image can be had; those deleted go."""
        if not self.head.alive:
            for pod in self.objects.all("Pod", "ray.io/node-type=head"):
                self.objects.delete("Pod", pod["metadata"]["name"], grace=0)
            self.head.start()
        ready = self.head.ready
        for pod in self.objects.all("Pod", "ray.io/is-ray-node=yes"):
            name = pod["metadata"]["name"]
            if "deletionTimestamp" in pod["metadata"]:
                if pod["metadata"]["labels"]["ray.io/node-type"] == "head":
                    self.head.kill()
                self.objects.delete("Pod", name, grace=0)
            elif pod["status"]["phase"] == "Pending" and "nodeName" in pod["spec"] and ready:
                absent = [each["image"] for each in pod["spec"]["containers"] if each["image"] in self.absent_images]
                self.objects.status("Pod", name, unpulled(pod, absent[0]) if absent else running(pod))

    def reconcile(self, job: Object, name: str) -> Object:
        """A RayJob's RayCluster and its Pods, made where they lack; its status."""
        cluster = self.objects.get("RayCluster", name) or self._create(job, name)
        groups = [("headgroup", "head", 1, cluster["spec"]["headGroupSpec"])]
        for group in cluster["spec"].get("workerGroupSpecs", []):
            count = group.get("replicas", group.get("minReplicas", 0)) * group.get("numOfHosts", 1)
            groups.append((group["groupName"], "worker", count, group))
        pods = self.objects.all("Pod", f"ray.io/cluster={name}")
        for group_name, role, count, group in groups:
            present = [pod for pod in pods if pod["metadata"]["labels"]["ray.io/group"] == group_name]
            for _ in range(count - len(present)):
                if not self._pod(cluster, group_name, role, group["template"]):
                    break  # as the operator, which tries again at its next look
        whole = sum(count for _, _, count, _ in groups)
        status = cluster_status(self.objects.all("Pod", f"ray.io/cluster={name}"), whole, cluster.get("status") or {})
        if status != cluster.get("status"):
            self.objects.status("RayCluster", name, status)
        return status

    def _create(self, job: Object, name: str) -> Object:
        labels = {"ray.io/originated-from-cr-name": job["metadata"]["name"], "ray.io/originated-from-crd": "RayJob"}
        metadata = {"name": name, "labels": labels, "ownerReferences": owned(job, "RayJob")}
        created = self.objects.create("RayCluster", {"metadata": metadata, "spec": job["spec"]["rayClusterSpec"]})
        self.objects.event(job, "RayJob", "CreatedRayCluster", f"Created RayCluster {self.objects.namespace}/{name}")
        return created

    def _pod(self, cluster: Object, group: str, role: str, template: Object) -> bool:
        name = cluster["metadata"]["name"]
        labels = {"ray.io/cluster": name, "ray.io/group": group, "ray.io/node-type": role, "ray.io/is-ray-node": "yes"}
        labels |= {"ray.io/identifier": f"{name}-{role}", "app.kubernetes.io/created-by": "kuberay-operator"}
        given = template.get("metadata") or {}
        middle = "head" if role == "head" else f"{group}-worker"
        metadata: Object = {"name": suffixed(f"{name[:50]}-{middle}"), "ownerReferences": owned(cluster, "RayCluster")}
        metadata |= {"labels": {**given.get("labels", {}), **labels}, "annotations": given.get("annotations", {})}
        title, about = role.capitalize(), f"{role} Pod {self.objects.namespace}/{metadata['name']}"
        try:
            self.objects.create("Pod", {"metadata": metadata, "spec": template["spec"]})
        except ApiException as refusal:
            said = f"Failed to create {about}, {refusal.body}"
            self.objects.event(cluster, "RayCluster", f"FailedToCreate{title}Pod", said, warning=True)
            return False
        self.objects.event(cluster, "RayCluster", f"Created{title}Pod", f"Created {about}")
        return True

    def delete(self, job: Object, name: str) -> None:
        for pod in self.objects.all("Pod", f"ray.io/cluster={name}"):
            self.objects.delete("Pod", pod["metadata"]["name"], grace=0)
        self.objects.delete("RayCluster", name)
        self.objects.event(job, "RayJob", "DeletedRayCluster", f"Deleted cluster {self.objects.namespace}/{name}")

"""How an entrypoint gets to Ray: the request, and the Job of the submitter that makes it."""

import json
import sys
from pathlib import Path

import yaml

from tests.k8s.objects import owned
from tests.k8s.plane import Object

COMMAND = [sys.executable, "-P", str(Path(__file__).with_name("submitter.py"))]
"""``-P``: `tests/k8s/operator.py`, beside it, is not the `operator` that Python's own modules import."""


def request(spec: Object, job_id: str) -> Object:
    """Of Ray's Jobs API."""
    body = {"entrypoint": spec["entrypoint"], "submission_id": job_id, "metadata": spec.get("metadata", {})}
    given: Object = yaml.safe_load(spec.get("runtimeEnvYAML", "")) or {}
    body["runtime_env"] = {**given, "env_vars": {**head_env(spec), **given.get("env_vars", {})}}
    for ours, rays in (("entrypointNumCpus", "entrypoint_num_cpus"), ("entrypointNumGpus", "entrypoint_num_gpus")):
        if ours in spec:
            body[rays] = spec[ours]
    return body


def head_env(spec: Object) -> dict[str, str]:
    """What an entrypoint finds, as it runs in the head's container; but for HOME, which is that of our head."""
    given = head_container(spec).get("env", [])
    return {each["name"]: each["value"] for each in given if "value" in each and each["name"] != "HOME"}


def head_container(spec: Object) -> Object:
    return spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]


def submitter(job: Object, job_id: str, url: str) -> Object:
    """The Job; its retries are the Job controller's own."""
    name, spec = job["metadata"]["name"], job["spec"]
    template = json.loads(json.dumps(spec.get("submitterPodTemplate") or {}))
    pod = {"restartPolicy": "Never", **template.get("spec", {})}
    pod["containers"] = pod.get("containers") or [{"name": "ray-job-submitter", "image": head_container(spec)["image"]}]
    pod["containers"][0] |= {"command": [*COMMAND, url, json.dumps(request(spec, job_id))], "args": []}
    labels = {"app.kubernetes.io/created-by": "kuberay-operator", "ray.io/originated-from-cr-name": name}
    labels["ray.io/originated-from-crd"] = "RayJob"
    given = template.get("metadata") or {}
    both = {"labels": {**given.get("labels", {}), **labels}, "annotations": given.get("annotations", {})}
    retries = spec.get("submitterConfig", {}).get("backoffLimit", 2)
    metadata = {"name": name, "labels": labels, "ownerReferences": owned(job, "RayJob")}
    return {"metadata": metadata, "spec": {"backoffLimit": retries, "template": {"metadata": both, "spec": pod}}}

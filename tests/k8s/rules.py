"""What KubeRay 1.7.0 refuses in a RayJob."""

import re

import yaml

from tests.k8s.plane import Object


def invalid(job: Object) -> str | None:
    """Why the operator's validation refuses it, in its words; None if it does not."""
    name, spec = job["metadata"]["name"], job["spec"]
    cluster, mode = spec.get("rayClusterSpec"), spec.get("submissionMode", "K8sJobMode")
    shutdown, ttl = spec.get("shutdownAfterJobFinishes", False), spec.get("ttlSecondsAfterFinished", 0)
    groups = [] if cluster is None else [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    metadata, wrong = "The RayJob metadata is invalid: RayJob name should be ", "The RayJob spec is invalid: "
    if len(name) > 47:
        return metadata + "no more than 47 characters"
    if not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name):
        return metadata + (
            "a valid DNS1035 label: [a DNS-1035 label must consist of lower case alphanumeric characters or '-', start "
            "with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
            "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')]"
        )
    if spec.get("suspend") and not shutdown:
        return wrong + "a RayJob with shutdownAfterJobFinishes set to false is not allowed to be suspended"
    if ttl < 0:
        return wrong + "TTLSecondsAfterFinished must be a non-negative integer"
    if ttl and not shutdown:
        return wrong + "a RayJob with shutdownAfterJobFinishes set to false cannot have TTLSecondsAfterFinished"
    if cluster is None and not spec.get("clusterSelector"):
        return wrong + "one of RayClusterSpec or ClusterSelector must be set"
    if spec.get("clusterSelector") and spec.get("backoffLimit", 0) > 0:
        return wrong + "BackoffLimit is incompatible with ClusterSelector mode"
    if mode == "InteractiveMode" and spec.get("backoffLimit", 0) > 0:
        return wrong + "BackoffLimit is incompatible with InteractiveMode"
    if mode == "SidecarMode" and "submitterPodTemplate" in spec:
        return "Currently, SidecarMode doesn't support SubmitterPodTemplate"
    if groups and not groups[0]["template"].get("spec", {}).get("containers"):
        return wrong + "headGroupSpec should have at least one container"
    for group in groups[1:]:
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if least > most:
            group_name = group["groupName"]
            return wrong + f"worker group {group_name} has minReplicas {least} greater than maxReplicas {most}"
    try:
        yaml.safe_load(spec.get("runtimeEnvYAML", ""))
    except yaml.YAMLError as error:
        return f"failed to unmarshal RuntimeEnvYAML: {spec['runtimeEnvYAML']}: {error}"
    for setting in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(setting, 1) <= 0:
            return wrong + f"{setting} must be a positive integer"
    if spec.get("backoffLimit", 0) < 0:
        return wrong + "backoffLimit must be a positive integer"
    return None

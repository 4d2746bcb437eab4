"""What is refused before anything is created on a cluster."""

from collections.abc import Mapping
from typing import Any

from k8s.client import Api
from k8s.errors import Misuse, Refusal
from k8s.settings import Settings

KUBERAY = "1.7.0"
INSTALL = (
    "helm upgrade --install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ "
    f"--version {KUBERAY}"
)
UPGRADE = f"kubectl apply --server-side -k 'github.com/ray-project/kuberay/ray-operator/config/crd?ref=v{KUBERAY}'"
RIGHTS = (
    *((verb, "ray.io", "rayjobs") for verb in ("create", "get", "list", "delete")),
    *((verb, "coordination.k8s.io", "leases") for verb in ("create", "get", "update", "delete")),
    ("list", "", "pods"),
)
"""Without one of these a job would be left that nobody can follow, or end.  What `k8s.schedule` gives has more."""
NEEDED = "preRunningDeadlineSeconds"
"""The newest field of a RayJob that we set: older definitions drop it silently, or refuse it."""


def check(api: Api, settings: Settings, rayjob: Mapping[str, Any]) -> None:
    """Errors: ``Misuse`` naming the setting, or the command that mends the cluster."""
    fields = _fields(api)
    if fields is None:
        raise Misuse(f"the cluster {api.host} knows no RayJob: KubeRay {KUBERAY} is not installed; {INSTALL}")
    if NEEDED not in fields:
        raise Misuse(
            f"the RayJob of the cluster {api.host} has no {NEEDED}: its KubeRay is older than {KUBERAY}; {UPGRADE}"
        )
    for verb, group, resource in RIGHTS:
        if not api.may(verb, group, resource):
            raise Misuse(
                f"namespace={api.namespace}: you may not {verb} {resource} there; ask for the role holdfast-submit in "
                "it, or give another namespace"
            )
    try:
        api.create(dict(rayjob), dry_run=True)
    except Refusal as error:
        if error.status == 404:
            raise Misuse(
                f"namespace={api.namespace} is not there ({error}); kubectl create namespace {api.namespace}"
            ) from error
        if error.status != 409:  # it is there: the caller attaches to it
            raise Misuse(f"the cluster refuses the job ({error})") from error
    _queue(api, settings)
    _secrets(api, settings)
    _account(api, settings)


def _fields(api: Api) -> Mapping[str, Any] | None:
    try:
        schema = api.schema("ray.io/v1")
    except Refusal:  # who may not look at definitions learns by the dry run
        return {NEEDED: {}}
    if schema is None:
        return None
    for name, each in schema["components"]["schemas"].items():
        if name.endswith(".RayJob"):
            fields: Mapping[str, Any] = each["properties"]["spec"]["properties"]
            return fields
    return None


def _queue(api: Api, settings: Settings) -> None:
    if not settings.queue:
        return
    try:
        if api.get("LocalQueue", settings.queue) is not None:
            return
        known = ", ".join(each["metadata"]["name"] for each in api.list("LocalQueue")) or "none"
    except Refusal as error:
        if error.status == 403:
            return  # the job itself will tell
        if error.status == 404:
            raise Misuse(
                f"queue={settings.queue}: Kueue is not installed in {api.host}; install it, or leave queue out"
            ) from error
        raise
    raise Misuse(f"queue={settings.queue} is no LocalQueue of namespace {api.namespace}; there are: {known}")


def _secrets(api: Api, settings: Settings) -> None:
    for name in settings.secrets:
        try:
            if api.get("Secret", name) is None:
                raise Misuse(
                    f"secrets={name}: no such Secret in namespace {api.namespace}; kubectl create secret generic "
                    f"{name} --from-literal=KEY=VALUE"
                )
        except Refusal as error:
            if error.status != 403:  # who may not read it may still name it: a pod that cannot start says so
                raise


def _account(api: Api, settings: Settings) -> None:
    try:
        there = api.get("ServiceAccount", settings.service_account)
    except Refusal:  # who may not look at it may still name it
        return
    if there is None:
        raise Misuse(
            f"service_account={settings.service_account}: no such account in namespace {api.namespace}; the chart "
            "makes holdfast-job"
        )

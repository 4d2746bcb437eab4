"""What the submitter may not do is said before anything is created, and what fails later leaves nothing behind."""

from collections.abc import Callable

import pytest

from k8s import job as jobs
from k8s import leases, preflight
from k8s.backends.rayjob import RayJobs
from k8s.errors import Misuse, Refusal, Unreachable
from k8s.settings import Settings
from tests.k8s.cluster import accounts
from tests.k8s.plane import Object, Plane, until

GROUP = "rbac.authorization.k8s.io"
TRAIN = ("train", "recipe=digits_standard")


@pytest.fixture
def submitter(crds: list[str], plane: Plane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> RayJobs:
    monkeypatch.setenv("KUBECONFIG", str(accounts(plane, namespace)))
    return RayJobs(Settings(image="registry.example/holdfast:1"))


@pytest.fixture
def forbid(plane: Plane, namespace: str) -> Callable[[str, str, str], None]:
    """Takes one right from the role of `holdfast-submit`."""

    def now(verb: str, group: str, resource: str) -> None:
        path = plane.path(f"{GROUP}/v1", "Role", namespace, "holdfast-submit")
        role = plane.call("GET", path)
        role["rules"] = [each for rule in role["rules"] for each in _without(rule, verb, group, resource)]
        plane.call("PUT", path, role)

    return now


def _without(rule: Object, verb: str, group: str, resource: str) -> list[Object]:
    if group not in rule["apiGroups"] or resource not in rule["resources"]:
        return [rule]
    others = [each for each in rule["resources"] if each != resource]
    verbs = [each for each in rule["verbs"] if each != verb]
    split = [{**rule, "resources": others}, {**rule, "resources": [resource], "verbs": verbs}]
    return [each for each in split if each["resources"] and each["verbs"]]


def left(plane: Plane, namespace: str) -> list[str]:
    paths = (plane.path("ray.io/v1", "RayJob", namespace), plane.path("coordination.k8s.io/v1", "Lease", namespace))
    return [item["metadata"]["name"] for path in paths for item in plane.call("GET", path)["items"]]


@pytest.mark.parametrize(("verb", "group", "resource"), preflight.RIGHTS)
def test_each_right_that_is_missing_is_named_and_nothing_is_created(
    submitter: RayJobs, forbid: Callable[..., None], plane: Plane, namespace: str, verb: str, group: str, resource: str
) -> None:
    forbid(verb, group, resource)
    until(lambda: not submitter.api.may(verb, group, resource))
    with pytest.raises(Misuse, match=rf"namespace={namespace}: .*(may not {verb} {resource}|cannot {verb} resource)"):
        submitter.start(jobs.make(submitter.settings, TRAIN))
    assert left(plane, namespace) == []


@pytest.mark.parametrize("error", [Misuse("the job's lease cannot be made"), Refusal(403, "not any more")])
def test_a_lease_that_cannot_be_made_leaves_no_job(
    submitter: RayJobs, plane: Plane, namespace: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(leases, "ensure", fails)
    with pytest.raises(Misuse):
        submitter.start(jobs.make(submitter.settings, TRAIN))
    assert left(plane, namespace) == []


def test_a_lease_that_others_keep_writing_is_asked_for_again(
    submitter: RayJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conflict(*_: object, **__: object) -> None:
        raise Refusal(409, "the object has been modified")

    monkeypatch.setattr(submitter.api, "get", conflict)
    body = {"metadata": {"name": "any", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}}
    with pytest.raises(Unreachable, match="the lease of any is being written by others"):
        leases.ensure(submitter.api, body)


def test_an_account_that_is_not_there_is_named_where_that_can_be_seen(
    submitter: RayJobs, plane: Plane, namespace: str
) -> None:
    """Who may not look at accounts may still name one: a pod that cannot be made says so."""
    settings = Settings(image="registry.example/holdfast:1", service_account="nobody")
    preflight._account(submitter.api, settings)  # says nothing
    rules = [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]}]
    role = {"apiVersion": f"{GROUP}/v1", "kind": "Role", "metadata": {"name": "looks"}, "rules": rules}
    subject = {"kind": "ServiceAccount", "name": "holdfast-submit", "namespace": namespace}
    binding = {"apiVersion": f"{GROUP}/v1", "kind": "RoleBinding", "metadata": {"name": "looks"}}
    reference = {"apiGroup": GROUP, "kind": "Role", "name": "looks"}
    plane.apply([role, {**binding, "roleRef": reference, "subjects": [subject]}], namespace)
    until(lambda: submitter.api.may("get", "", "serviceaccounts"))
    with pytest.raises(Misuse, match="service_account=nobody: no such account"):
        preflight._account(submitter.api, settings)
    preflight._account(submitter.api, Settings(image="registry.example/holdfast:1"))

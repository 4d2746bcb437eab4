"""The chart on a real API server, by the real helm: what is accepted, who may do what, and a release's life."""

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException
from kubernetes.client.exceptions import NotFoundException

from k8s import schedule
from k8s.settings import Settings
from tests.infra import helm
from tests.infra.helm import CHART, EXAMPLES, of_kind
from tests.k8s.plane import Object, Plane, until
from tests.tools import lacks

OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
KINDS = ("podmonitors", "prometheusrules")


@pytest.fixture(scope="module")
def monitoring(plane: Plane) -> None:
    """The PodMonitor and PrometheusRule kinds, from the Go module that publishes them."""
    if not (go := shutil.which("go")):
        lacks(f"go is not installed; it fetches {OPERATOR}")
    answer = subprocess.run([go, "mod", "download", "-json", OPERATOR], capture_output=True, text=True, timeout=200)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    folder = Path(json.loads(answer.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    for kind in KINDS:
        crd = yaml.load((folder / f"monitoring.coreos.com_{kind}.yaml").read_text(), yaml.CSafeLoader)
        plane.apply([crd])
        until(lambda kind=kind: kind in _served(plane, "monitoring.coreos.com/v1"))


def _served(plane: Plane, version: str) -> set[str]:
    try:
        return {each["name"] for each in plane.call("GET", f"/apis/{version}")["resources"]}
    except NotFoundException:
        return set()


def on(plane: Plane, namespace: str, *arguments: Any, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    return helm.helm(*arguments, "-n", namespace, "--kubeconfig", plane.kubeconfig, values=values)


def restricted(plane: Plane, namespace: str) -> None:
    """From now on the API server takes no pod here that the restricted standard forbids."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}])
    bare = {"containers": [{"name": "main", "image": "holdfast:test"}]}
    with pytest.raises(ApiException, match="violates PodSecurity"):
        plane.apply([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": bare}], namespace)


def listed(plane: Plane, namespace: str, version: str, kind: str, **query: str) -> list[Object]:
    return list(plane.call("GET", plane.path(version, kind, namespace), **query)["items"])


@pytest.mark.usefixtures("crds", "monitoring")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_object_is_accepted_as_it_stands(plane, namespace, path):
    """Strictly: an unknown or doubled field is an error, and the CRDs' own rules hold."""
    objects = helm.render(path)
    assert len(plane.apply(objects, namespace, dryRun="All")) == len(objects)
    if path.stem == "everything-values":
        kinds = {each["kind"] for each in objects}
        assert {"NodePool", "EC2NodeClass", "ClusterQueue", "ResourceFlavor", "PodMonitor", "PrometheusRule"} <= kinds


@pytest.mark.usefixtures("crds", "monitoring")
def test_a_release_lives_and_leaves_nothing(plane, namespace):
    """Hooks off: there is no database here, and test_mlflow_server.py runs the migration on a real one."""
    restricted(plane, namespace)
    values = ("-f", helm.example("everything"), "--no-hooks")
    dry = on(plane, namespace, "install", "holdfast", CHART, *values, "--dry-run=server")
    assert dry.returncode == 0, dry.stderr
    assert listed(plane, namespace, "apps/v1", "Deployment") == []

    installed = on(plane, namespace, "install", "holdfast", CHART, *values)
    assert installed.returncode == 0, installed.stderr
    assert "port-forward svc/holdfast-mlflow 5000" in installed.stdout
    assert listed(plane, namespace, "kueue.x-k8s.io/v1beta2", "LocalQueue")
    pods = until(
        lambda: _pods(plane, namespace, 3)
    )  # the controller manager makes them, the restricted standard allows it
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"holdfast-mlflow"}

    again = on(plane, namespace, "install", "holdfast", CHART, *values)
    assert "cannot re-use a name that is still in use" in again.stderr
    upgraded = on(plane, namespace, "upgrade", "holdfast", CHART, *values, values={"tracking": {"replicas": 1}})
    assert upgraded.returncode == 0, upgraded.stderr
    until(lambda: _pods(plane, namespace, 1))
    back = on(plane, namespace, "rollback", "holdfast", "1", "--no-hooks")
    assert back.returncode == 0, back.stderr
    until(lambda: _pods(plane, namespace, 3))

    gone = on(plane, namespace, "uninstall", "holdfast")
    assert gone.returncode == 0, gone.stderr
    for each in helm.render("everything"):
        if each["metadata"].get("annotations", {}).get("helm.sh/hook"):
            continue
        left = listed(
            plane, namespace, each["apiVersion"], each["kind"], labelSelector="app.kubernetes.io/name=holdfast"
        )
        assert [one for one in left if "deletionTimestamp" not in one["metadata"]] == [], each["kind"]


def _pods(plane: Plane, namespace: str, count: int) -> list[Object]:
    found = listed(plane, namespace, "v1", "Pod", labelSelector="app.kubernetes.io/component=mlflow")
    alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    return alive if len(alive) == count else []


GUIDE = (CHART.parent / "README.md").read_text()


@pytest.mark.usefixtures("crds")
def test_the_commands_of_the_guide_run_in_their_order(plane, namespace, tmp_path):
    """But for the prerequisites', which need a network; and a second release in the same namespace is refused."""
    (values,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.M | re.S)
    (tmp_path / "values.yaml").write_text(values)
    lines = [line for text in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.M | re.S) for line in text.splitlines()]
    commands = [line for line in lines if line.startswith("helm ") and not re.search("kuberay|kueue", line)]
    assert [line.split()[1] for line in commands] == ["lint", "install", "install", "upgrade", "rollback", "uninstall"]
    for line in commands:
        words = line.replace("infra/helm/holdfast", str(CHART)).replace("values.yaml", str(tmp_path / "values.yaml"))
        _, verb, *arguments = words.replace(" -n holdfast", "").split()
        hooks = () if verb in ("lint", "uninstall") else ("--no-hooks",)
        done = on(plane, namespace, verb, *arguments, *hooks)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        if verb == "upgrade":
            second = on(plane, namespace, "install", "second", CHART, "-f", helm.example("minimal"), "--no-hooks")
            assert "invalid ownership metadata" in second.stderr


SUBMIT = {
    ("ray.io", "rayjobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"list"},
    ("", "events"): {"list"},
    ("", "pods/log"): {"get"},
    ("coordination.k8s.io", "leases"): {"get", "create", "update", "delete"},
    ("kueue.x-k8s.io", "localqueues"): {"get", "list"},
    ("kueue.x-k8s.io", "workloads"): {"list"},
    ("", "secrets", "mlflow-user"): {"get"},
    ("", "secrets", "s3-keys"): {"get"},
}
RIGHTS = {
    "holdfast-submit": SUBMIT,
    "holdfast-retrain": SUBMIT,
    "weekly-schedule": SUBMIT,
    "holdfast-job": {("coordination.k8s.io", "leases"): {"get", "create", "update"}},
    "holdfast-mlflow": {},
}


@pytest.fixture
def released(plane: Plane, namespace: str) -> str:
    """A namespace with the chart's accounts and roles, and those of a schedule that is rendered."""
    wanted = ("ServiceAccount", "Role", "RoleBinding")
    rendered = helm.helm(
        "template",
        "holdfast",
        CHART,
        "-n",
        namespace,
        "--kube-version",
        helm.KUBERNETES,
        "-f",
        helm.example("everything"),
    )
    settings = Settings(image="holdfast:1", namespace=namespace, name="weekly", secrets=("mlflow-user", "s3-keys"))
    weekly = schedule.cronjob(settings, ["retrain", "recipe=digits_gradnorm"], "0 3 * * 1", "Etc/UTC")
    objects = [*filter(None, yaml.safe_load_all(rendered.stdout)), *weekly]
    plane.apply([each for each in objects if each["kind"] in wanted], namespace)
    return namespace


def rules(plane: Plane, namespace: str, account: str) -> dict[tuple[str, ...], set[str]]:
    """All that an account may do in a namespace, by the API server's own account of it."""
    own = Plane(plane.kubeconfig_for(namespace, account))
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    status = until(lambda: own.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body)["status"])
    found: dict[tuple[str, ...], set[str]] = {}
    for rule in status["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames") or [None]:
                    key = (group, resource, name) if name else (group, resource)
                    found.setdefault(key, set()).update(rule["verbs"])
    return found


@pytest.mark.parametrize("account", RIGHTS)
def test_an_account_may_do_this_and_nothing_else(plane, released, account):
    anybody = rules(plane, released, "default")  # who am I, and what may I do
    assert set(anybody) <= {
        *(("authorization.k8s.io", f"selfsubject{kind}reviews") for kind in ("access", "rules")),
        ("authentication.k8s.io", "selfsubjectreviews"),
    }
    mine = rules(plane, released, account)
    assert {key: verbs for key, verbs in mine.items() if key not in anybody} == RIGHTS[account]


def can(
    plane: Plane, user: str, namespace: str | None, verb: str, resource: str, group: str = "", **names: str
) -> bool:
    attributes = {"verb": verb, "group": group, **names, **({"namespace": namespace} if namespace else {})}
    attributes["resource"], _, attributes["subresource"] = resource.partition("/")
    groups = names.pop("groups", "").split(",")
    attributes.pop("groups", None)
    spec = {"user": user, "groups": groups, "resourceAttributes": attributes}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return bool(plane.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])


def test_what_matters_most_is_asked_one_by_one(plane, released):
    user = f"system:serviceaccount:{released}:holdfast-submit"
    yes = [("create", "rayjobs", "ray.io"), ("get", "pods/log", ""), ("update", "leases", "coordination.k8s.io")]
    no = [
        *(("get", "secrets", ""), ("list", "secrets", ""), ("create", "pods", ""), ("create", "pods/exec", "")),
        *(("patch", "rayjobs", "ray.io"), ("delete", "pods", ""), ("create", "serviceaccounts/token", "")),
        *(("create", "rolebindings", "rbac.authorization.k8s.io"), ("create", "jobs", "batch")),
    ]
    for verb, resource, group in yes:
        assert can(plane, user, released, verb, resource, group), (verb, resource)
        assert not can(plane, user, "default", verb, resource, group), (verb, resource, "elsewhere")
        assert not can(plane, user, None, verb, resource, group), (verb, resource, "everywhere")
    for verb, resource, group in no:
        assert not can(plane, user, released, verb, resource, group), (verb, resource)
    assert can(plane, user, released, "get", "secrets", name="mlflow-user")
    assert not can(plane, user, released, "get", "secrets", name="holdfast-database")
    assert can(plane, "somebody", released, "create", "rayjobs", "ray.io", groups="holdfast:ci")
    assert not can(plane, "somebody", released, "create", "rayjobs", "ray.io", groups="others")


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    """The environment in which ``name`` is this script: what stands in the image is not the chart's."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{path.parent}:{os.environ['PATH']}"}


@pytest.mark.usefixtures("crds")
def test_an_install_whose_migration_fails_stops_there(plane, namespace, start_kubelet, tmp_path):
    start_kubelet(
        runs=lambda pod: "job-name" in pod["metadata"]["labels"], env=program(tmp_path, "mlflow", "test -e ready")
    )
    plane.node("system-1")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "holdfast-database"},
        "stringData": {"password": "x"},
    }
    plane.apply([secret], namespace)
    failing = (CHART, "-f", helm.example("minimal"), "--timeout", "60s")
    refused = on(plane, namespace, "install", "holdfast", *failing)
    assert refused.returncode != 0
    assert "failed pre-install" in refused.stderr
    assert listed(plane, namespace, "apps/v1", "Deployment") == []

    program(tmp_path, "mlflow", 'test "$1 $2 $PGPASSWORD" = "db upgrade x"')
    done = on(plane, namespace, "upgrade", "--install", "holdfast", *failing)
    assert done.returncode == 0, done.stderr
    assert [each["metadata"]["name"] for each in listed(plane, namespace, "apps/v1", "Deployment")] == [
        "holdfast-mlflow"
    ]
    assert listed(plane, namespace, "batch/v1", "Job") == []  # the hook went when it had succeeded
    on(plane, namespace, "uninstall", "holdfast")


@pytest.mark.usefixtures("crds")
@pytest.mark.parametrize(("code", "tries"), [(3, 1), (4, 2)])
def test_a_schedule_fires_and_a_refusal_is_not_tried_again(plane, namespace, start_kubelet, tmp_path, code, tries):
    start_kubelet(env=program(tmp_path, "holdfast", f'echo "$@"; exit {code}'))
    plane.node("system-1")
    restricted(plane, namespace)
    tick = datetime.now(UTC) - timedelta(minutes=1)
    entry = {
        "name": "digits",
        "schedule": f"{tick.minute} {tick.hour} * * *",
        "command": ["retrain", "recipe=digits_sat"],
    }
    values = {"schedules": [{**entry, "backoffLimit": 1}]}
    rendered = helm.render("minimal", values)
    wanted = ("ServiceAccount", "CronJob", "ConfigMap")
    plane.apply([each for each in rendered if each["kind"] in wanted], namespace)
    plane.fire(namespace, "holdfast-digits")
    (job,) = until(lambda: listed(plane, namespace, "batch/v1", "Job"))
    name = job["metadata"]["name"]
    assert name.startswith("holdfast-digits-")
    assert len(name) <= 47  # a RayJob's limit

    def ended() -> Object | None:
        status = plane.call("GET", plane.path("batch/v1", "Job", namespace, name))["status"]
        return next((each for each in status.get("conditions", ()) if each["type"] == "Failed"), None)

    reason = until(ended, 60)["reason"]
    assert reason == ("PodFailurePolicy" if code == 3 else "BackoffLimitExceeded")
    pods = listed(plane, namespace, "v1", "Pod", labelSelector=f"batch.kubernetes.io/job-name={name}")
    assert len(pods) == tries
    for pod in pods:
        log = plane.open("GET", plane.path("v1", "Pod", namespace, pod["metadata"]["name"]) + "/log").data.decode()
        assert (
            log.split()
            == f"submit name={name}-r cluster=/etc/holdfast/cluster.yaml -- retrain recipe=digits_sat".split()
        )
    assert of_kind(rendered, "CronJob")["holdfast-digits"]["spec"]["concurrencyPolicy"] == "Forbid"

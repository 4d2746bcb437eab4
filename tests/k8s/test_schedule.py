"""A schedule: what is rendered, what it may do, and that it fires and submits."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import job as jobs
from k8s import rayjob, schedule
from k8s.errors import Misuse
from k8s.render import render
from k8s.settings import Settings, read
from k8s.state import MISUSE, STOPPED
from tests.infra import helm
from tests.k8s.plane import Object, Plane, until
from tests.k8s.test_chart import listed, restricted

WORDS = [
    "cronjob",
    "image=registry.example/holdfast:1",
    "schedule=0 3 * * 1",
    "time_zone=Europe/Berlin",
    "name=weekly",
    "namespace=robust",
]
RETRAIN = ["retrain", "recipe=digits_gradnorm", "register_as=digits"]


def documents(*more: str, command: list[str] = RETRAIN) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all(render([*WORDS, *more], command))}


def test_it_never_runs_two_at_once_and_forgets_what_is_too_late() -> None:
    spec = documents()["CronJob"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 3 * * 1", "Europe/Berlin")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] > 0
    assert spec["successfulJobsHistoryLimit"] == spec["failedJobsHistoryLimit"] == 3


def test_its_pod_submits_under_its_jobs_own_name_as_an_account_of_its_own() -> None:
    found = documents("queue=gpu", "env.A=1", "secrets=tracking")
    pod = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"] == "weekly-schedule"
    assert container["args"][:3] == ["submit", "cluster=/etc/holdfast/cluster.yaml", "name=$(JOB)-r"]
    assert container["args"][3:] == ["--", *RETRAIN]
    (name,) = [each for each in container["env"] if each["name"] == "JOB"]
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
    mounted = yaml.safe_load(found["ConfigMap"]["data"]["cluster.yaml"])
    assert mounted == {
        "namespace": "robust",
        "image": "registry.example/holdfast:1",
        "queue": "gpu",
        "env": {"A": "1"},
        "secrets": ["tracking"],
    }
    assert found["Role"]["rules"][-1] == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["tracking"],
        "verbs": ["get"],
    }


def test_two_schedules_share_nothing_and_touch_nobodys() -> None:
    """Not even one that is called as every pod's account, or as something of the chart's."""
    seen = {
        ("ServiceAccount", "default"),
        *((each["kind"], each["metadata"]["name"]) for each in helm.render("everything")),
    }
    for name in ("weekly", "daily", "default", "holdfast-submit", "holdfast-cluster"):
        found = documents(f"name={name}")
        ours = {(kind, each["metadata"]["name"]) for kind, each in found.items()}
        assert len(found) == 5
        assert not ours & seen
        seen |= ours
        (subject,) = found["RoleBinding"]["subjects"]
        assert subject["name"] == found["ServiceAccount"]["metadata"]["name"]
        assert found["RoleBinding"]["roleRef"]["name"] == found["Role"]["metadata"]["name"]


def test_what_the_pod_mounts_is_what_submit_reads(tmp_path: Any) -> None:
    given = ["queue=gpu", "nodes=2", "env.A=1", "secrets=[a, b]", "retries=0", "deadline_minutes=30"]
    file = tmp_path / "cluster.yaml"
    file.write_text(documents(*given)["ConfigMap"]["data"]["cluster.yaml"])
    whole = [*given, "image=registry.example/holdfast:1", "namespace=robust", f"cluster={file}"]
    assert read([f"cluster={file}"]) == read(whole)


def test_pools_of_your_own_go_along(tmp_path: Any) -> None:
    (tmp_path / "mine.yaml").write_text("instance_types: [m1]\ncapacity: spot\ncpus: 2\nmemory: 4\n")
    found = documents(f"pools={tmp_path}", "pool=mine")
    data = found["ConfigMap"]["data"]
    assert yaml.safe_load(data["cluster.yaml"])["pools"] == "/etc/holdfast/pools"
    assert data["mine.yaml"] == (tmp_path / "mine.yaml").read_text()
    pod = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    paths = {each["key"]: each["path"] for each in pod["volumes"][0]["configMap"]["items"]}
    assert paths == {"cluster.yaml": "cluster.yaml", "mine.yaml": "pools/mine.yaml", "head.yaml": "pools/head.yaml"}


def test_a_refusal_is_not_tried_again() -> None:
    job = documents()["CronJob"]["spec"]["jobTemplate"]["spec"]
    drained, rule = job["podFailurePolicy"]["rules"]
    assert drained["action"] == "Ignore", "a drained pod exits with 5, and must not end the Job"
    assert rule["action"] == "FailJob"
    assert set(rule["onExitCodes"]["values"]) == {1, 2, 3, 5}, "4, lost, and a pod that was killed are tried again"
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_its_jobs_names_fit_a_rayjob() -> None:
    longest = "a" * schedule.LONGEST
    assert len(f"{longest}-{29_000_000}-r") <= jobs.LONGEST
    documents(f"name={longest}")
    with pytest.raises(Misuse, match="37 characters"):
        documents(f"name={longest}a")


@pytest.mark.parametrize("line", ["every monday", "0 3 * *", "0 3 * * 1 2", "a b c d e", "* * * * * ; rm"])
def test_a_line_that_is_no_schedule_is_refused(line: str) -> None:
    with pytest.raises(Misuse, match="is not a cron line"):
        render([*WORDS, f"schedule={line}"], RETRAIN)
    with pytest.raises(Misuse, match="schedule is not set"):
        render(["cronjob", "image=a/b:1"], RETRAIN)
    with pytest.raises(Misuse, match="namespace is not set"):
        render(["cronjob", "image=a/b:1", "schedule=0 3 * * 1"], RETRAIN)


@pytest.mark.parametrize("line", ["*/15 * * * *", "0 3 1,15 * *", "30 2 * * 1-5", "0 3 * * MON-FRI", "@daily"])
def test_a_line_that_is_one_is_taken(line: str) -> None:
    assert documents(f"schedule={line}")["CronJob"]["spec"]["schedule"] == line


def test_what_submit_would_refuse_at_night_is_refused_now() -> None:
    with pytest.raises(Misuse, match="names no fixed image"):
        documents("image=repo/holdfast:latest")


@pytest.mark.usefixtures("crds", "kubelet")
@pytest.mark.parametrize("bound", [True, False], ids=["with its rights", "without them"])
def test_it_fires_and_its_pod_submits_as_the_schedules_own_account(
    plane: Plane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: bool
) -> None:
    """`holdfast submit` as the pod runs it, with the token of its account; the file lies where no volume can put it."""
    mount = tmp_path / "mounted"
    monkeypatch.setattr(schedule, "MOUNT", str(mount))
    plane.node("system-1")
    restricted(plane, namespace)
    tick = datetime.now(UTC) - timedelta(minutes=1)
    words = [f"namespace={namespace}", f"schedule={tick.minute} {tick.hour} * * *", "time_zone=Etc/UTC"]
    found = documents(*words)
    mounted(found, mount)
    plane.apply([each for kind, each in found.items() if bound or kind != "RoleBinding"], namespace)
    plane.fire(namespace, "weekly")
    (job,) = until(lambda: listed(plane, namespace, "batch/v1", "Job"))
    name = job["metadata"]["name"]

    def rayjobs() -> list[Object]:
        return listed(plane, namespace, "ray.io/v1", "RayJob")

    if bound:
        (made,) = until(rayjobs)
        assert made["metadata"]["name"] == f"{name}-r"
        assert made["spec"]["entrypoint"].endswith("holdfast retrain recipe=digits_gradnorm register_as=digits")
        until(lambda: f"submitted to namespace {namespace} of" in log(plane, namespace, name))
        (lease,) = listed(plane, namespace, "coordination.k8s.io/v1", "Lease")
        assert lease["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        plane.call("DELETE", plane.path("ray.io/v1", "RayJob", namespace, f"{name}-r"))
    pod = until(lambda: ended(plane, namespace, name))
    said = log(plane, namespace, name)
    assert pod["spec"]["serviceAccountName"] == "weekly-schedule"
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == (STOPPED if bound else MISUSE)
    assert rayjobs() == []
    assert (f'"system:serviceaccount:{namespace}:weekly-schedule" cannot' in said) != bound, said

    def failed() -> Object | None:
        status = plane.call("GET", plane.path("batch/v1", "Job", namespace, name))["status"]
        return next((each for each in status.get("conditions", ()) if each["type"] == "Failed"), None)

    assert until(failed)["reason"] == "PodFailurePolicy", "a stop and a refusal end it at once"


def mounted(found: dict[str, Object], folder: Path) -> None:
    """The ConfigMap's volume, as a kubelet lays it out."""
    pod = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["volumeMounts"][0] == {"name": "cluster", "mountPath": str(folder)}
    assert pod["volumes"][0]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    for each in pod["volumes"][0]["configMap"]["items"]:
        (folder / each["path"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / each["path"]).write_text(found["ConfigMap"]["data"][each["key"]])


def submitters(plane: Plane, namespace: str, job: str) -> list[Object]:
    return listed(plane, namespace, "v1", "Pod", labelSelector=f"batch.kubernetes.io/job-name={job}")


def ended(plane: Plane, namespace: str, job: str) -> Object | None:
    return next((pod for pod in submitters(plane, namespace, job) if pod["status"]["phase"] == "Failed"), None)


def log(plane: Plane, namespace: str, job: str) -> str:
    (pod,) = submitters(plane, namespace, job)
    return plane.open("GET", plane.path("v1", "Pod", namespace, pod["metadata"]["name"]) + "/log").data.decode()


def test_kuberays_own_is_there_for_who_asks() -> None:
    words = ["raycronjob", *WORDS[1:]]
    (found,) = yaml.safe_load_all(render(words, RETRAIN))
    assert found["kind"] == "RayCronJob"
    settings = Settings(image="registry.example/holdfast:1", name="weekly")
    spec = rayjob.rayjob(settings, jobs.make(settings, RETRAIN))["spec"]
    assert found["spec"]["jobTemplate"]["backoffLimit"] == 0, "a refusal would be tried again"
    assert json.dumps(found["spec"]["jobTemplate"]["rayClusterSpec"]) == json.dumps(spec["rayClusterSpec"])
    assert found["spec"]["jobTemplate"]["entrypoint"] == "holdfast retrain recipe=digits_gradnorm register_as=digits"


def test_the_cluster_that_stays_and_the_pools_are_rendered() -> None:
    (cluster,) = yaml.safe_load_all(render(["raycluster", "image=a/b:1", "name=shared", "pool=l4-spot", "nodes=2"], []))
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert cluster["spec"]["workerGroupSpecs"][0]["replicas"] == 2
    with pytest.raises(Misuse, match="name is not set"):
        render(["raycluster", "image=a/b:1"], [])
    with pytest.raises(Misuse, match="render pod is unknown"):
        render(["pod"], [])
    assert "a10g-spot" in render(["pools"], [])

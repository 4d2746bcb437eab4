"""A schedule: what is rendered, what it may do, and that it fires."""

import json
from typing import Any

import pytest
import yaml

from k8s import job as jobs
from k8s import rayjob, schedule
from k8s.errors import Misuse
from k8s.render import render
from k8s.settings import Settings, read

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
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"] == "holdfast-retrain"
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

"""The cluster the other tests of k8s/ stand on behaves as a real one, as it is one but for its nodes."""

import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3
from kubernetes import client, config
from kubernetes.client import ApiException

from tests.k8s.plane import Object, events, until

GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def pod(name: str, script: str = "true", **spec: object) -> Object:
    container = {"name": "main", "image": "holdfast:test", "command": ["sh", "-c", script]}
    spec = {"restartPolicy": "Never", "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "test"}}, "spec": spec}


def job(name: str, script: str) -> Object:
    template = {"spec": pod(name, script)["spec"]}
    spec = {"template": template, "backoffLimit": 0}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def get(plane, namespace: str, kind: str, name: str) -> Object:
    return plane.call("GET", plane.path("batch/v1" if "Job" in kind else "v1", kind, namespace, name))


def await_phase(plane, namespace: str, name: str, *phases: str) -> Object:
    def reached() -> Object | None:
        found = get(plane, namespace, "Pod", name)
        return found if found["status"]["phase"] in phases else None

    return until(reached)


def state(found: Object) -> Object:
    """Of its container."""
    (only,) = found["status"]["containerStatuses"]
    return only["state"]


def read_log(plane, namespace: str, name: str, **query: object) -> str:
    return plane.open("GET", plane.path("v1", "Pod", namespace, name) + "/log", **query).data.decode()


@pytest.fixture
def node(plane) -> None:
    plane.node("cpu-1")


@pytest.mark.usefixtures("kubelet", "node")
def test_a_job_runs_and_its_log_is_read_through_the_api_server(plane, namespace):
    plane.apply([job("says", "echo one; echo two >&2; exit 3")], namespace)
    done = until(lambda: get(plane, namespace, "Job", "says").get("status", {}).get("failed"))
    assert done == 1
    (found,) = plane.call("GET", plane.path("v1", "Pod", namespace), labelSelector="job-name=says")["items"]
    assert found["status"]["phase"] == "Failed"
    assert found["status"]["podIP"] == "127.0.0.1"
    assert state(found)["terminated"]["exitCode"] == 3
    name = found["metadata"]["name"]
    core = client.CoreV1Api(config.new_client_from_config(str(plane.kubeconfig)))
    assert core.read_namespaced_pod_log(name, namespace) == "one\ntwo\n"
    assert read_log(plane, namespace, name, tailLines=1) == "two\n"
    stamp, word = read_log(plane, namespace, name, tailLines=1, timestamps="true").split()
    assert word == "two"
    written = datetime.fromisoformat(stamp)
    assert read_log(plane, namespace, name, sinceTime=(written + timedelta(seconds=1)).strftime("%FT%TZ")) == ""
    assert read_log(plane, namespace, name, sinceTime=written.strftime("%FT%TZ")) == "one\ntwo\n"
    with pytest.raises(ApiException, match="container other is not valid"):
        read_log(plane, namespace, name, container="other")


@pytest.mark.usefixtures("node")
def test_a_log_is_followed_over_a_cut(plane, namespace, kubelet, tmp_path):
    go = tmp_path / "go"
    plane.apply([pod("talks", f"echo one; while [ ! -e {go} ]; do sleep 0.05; done; echo two")], namespace)
    await_phase(plane, namespace, "talks", "Running")
    path = plane.path("v1", "Pod", namespace, "talks") + "/log"
    first = plane.open("GET", path, follow="true").stream(amt=None)
    assert next(first) == b"one\n"
    kubelet.cut_logs()
    assert list(first) == []  # as if the container had ended
    assert await_phase(plane, namespace, "talks", "Running")
    second = plane.open("GET", path, follow="true").stream(amt=None)
    assert next(second) == b"one\n"
    go.touch()
    assert list(second) == [b"two\n"]
    await_phase(plane, namespace, "talks", "Succeeded")


@pytest.mark.usefixtures("kubelet", "node")
def test_kubectl_follows_a_log_to_its_end(plane, namespace):
    plane.apply([pod("counts", "for i in 1 2 3; do echo $i; sleep 0.1; done")], namespace)
    await_phase(plane, namespace, "counts", "Running", "Succeeded")
    kubectl = [plane.binaries / "kubectl", f"--kubeconfig={plane.kubeconfig}", f"--namespace={namespace}"]
    command = [*kubectl, "logs", "-f", "counts"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "1\n2\n3\n"


@pytest.mark.usefixtures("kubelet", "node")
def test_a_container_gets_its_environment_and_the_rights_of_its_service_account(plane, namespace):
    field = {"fieldRef": {"fieldPath": "metadata.labels['app']"}}
    secret = {"secretKeyRef": {"name": "keys", "key": "key"}}
    absent = {"configMapKeyRef": {"name": "no-such", "key": "key", "optional": True}}
    awaited = {"configMapKeyRef": {"name": "late", "key": "key"}}
    env = [
        {"name": "APP", "valueFrom": field},
        {"name": "KEY", "valueFrom": secret},
        {"name": "BOTH", "value": "$(APP)-$(KEY)-$(ALL_key) $$(APP) $(NONE)"},
        {"name": "ABSENT", "valueFrom": absent},
        {"name": "LATE", "valueFrom": awaited},
    ]
    one = pod("asks", namespace)
    all_of_it = [{"secretRef": {"name": "keys"}, "prefix": "ALL_"}]
    command = ["python", "-c", ASKS]
    one["spec"]["containers"][0] |= {"env": env, "envFrom": all_of_it, "command": command, "args": ["$(BOTH)"]}
    keys = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "hidden"}}
    plane.apply([keys, one], namespace)
    until(lambda: "waiting" in state(get_started(plane, namespace, "asks")))
    waiting = state(get_started(plane, namespace, "asks"))["waiting"]
    assert waiting["reason"] == "CreateContainerConfigError"
    assert waiting["message"] == 'configmap "late" not found'
    with pytest.raises(ApiException, match="is waiting to start: CreateContainerConfigError"):
        read_log(plane, namespace, "asks")
    late = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"key": "now"}}
    plane.apply([late], namespace)
    await_phase(plane, namespace, "asks", "Succeeded")
    who, what = f'User "system:serviceaccount:{namespace}:default"', 'list resource "pods" in API group ""'
    assert read_log(plane, namespace, "asks").splitlines() == [
        "test-hidden-hidden $(APP) $(NONE)",
        "now None",
        f'403 pods is forbidden: {who} cannot {what} in the namespace "{namespace}"',
    ]


ASKS = """
import json, os, sys
from kubernetes import client, config
print(sys.argv[1])
print(os.environ["LATE"], os.environ.get("ABSENT"))
config.load_config()
namespace = config.list_kube_config_contexts()[1]["context"]["namespace"]
try:
    client.CoreV1Api().list_namespaced_pod(namespace)
except client.ApiException as refusal:
    print(refusal.status, json.loads(refusal.body)["message"])
"""


def get_started(plane, namespace: str, name: str) -> Object:
    """A pod that its kubelet has seen."""

    def seen() -> Object | None:
        found = get(plane, namespace, "Pod", name)
        return found if "containerStatuses" in found["status"] else None

    return until(seen)


@pytest.mark.usefixtures("node")
def test_some_pods_never_start_and_others_are_left_to_the_test(plane, namespace, start_kubelet):
    start_kubelet(absent_images={"holdfast:absent"}, runs=lambda each: each["metadata"]["name"] != "head")
    broken, wrong = pod("broken"), pod("wrong")
    broken["spec"]["containers"][0]["image"] = "holdfast:absent"
    wrong["spec"]["containers"][0]["command"] = ["no-such-program"]
    plane.apply([broken, wrong, pod("head"), pod("runs")], namespace)
    until(lambda: state(get_started(plane, namespace, "broken"))["waiting"]["reason"] == "ImagePullBackOff")
    assert state(await_phase(plane, namespace, "wrong", "Failed"))["terminated"]["reason"] == "StartError"
    await_phase(plane, namespace, "runs", "Succeeded")
    until(lambda: get(plane, namespace, "Pod", "head")["spec"].get("nodeName") == "cpu-1")
    assert "containerStatuses" not in get(plane, namespace, "Pod", "head")["status"]
    for name in ("broken", "head"):
        plane.call("DELETE", plane.path("v1", "Pod", namespace, name))
        await_gone(plane, namespace, name)


@pytest.mark.usefixtures("kubelet", "node")
def test_a_container_is_restarted_as_its_policy_says(plane, namespace, tmp_path):
    second = tmp_path / "second"
    script = f"[ -e {second} ] && exit 0; touch {second}; exit 4"
    plane.apply([pod("again", script, restartPolicy="OnFailure"), pod("once", "exit 4")], namespace)
    (container,) = await_phase(plane, namespace, "again", "Succeeded")["status"]["containerStatuses"]
    assert container["restartCount"] == 1
    assert await_phase(plane, namespace, "once", "Failed")["status"]["containerStatuses"][0]["restartCount"] == 0


def await_gone(plane, namespace: str, name: str) -> None:
    def gone() -> bool:
        there = plane.call("GET", plane.path("v1", "Pod", namespace))["items"]
        return name not in [each["metadata"]["name"] for each in there]

    until(gone)


@pytest.mark.usefixtures("kubelet", "node")
def test_a_deleted_pod_has_its_grace_and_no_more(plane, namespace, tmp_path):
    heard = tmp_path / "heard"
    saves = f"trap 'echo saved > {heard}; exit 7' TERM; while :; do sleep 0.05; done"
    stays = f"trap 'echo stays > {tmp_path}/stays' TERM; while :; do sleep 0.05; done"
    plane.apply([pod("saves", saves), pod("stays", stays)], namespace)
    seen: dict[str, list[int]] = {"saves": [], "stays": []}
    pods = plane.path("v1", "Pod", namespace)
    version = plane.call("GET", pods)["metadata"]["resourceVersion"]
    watch = plane.open("GET", pods, watch="true", resourceVersion=version, timeoutSeconds=60)
    for name, grace in (("saves", 30), ("stays", 1)):
        await_phase(plane, namespace, name, "Running")
        plane.call("DELETE", f"{pods}/{name}", gracePeriodSeconds=grace)
    gone = 0
    for event in events(watch):
        (status,) = event["object"]["status"].get("containerStatuses", [{"state": {}}])
        if ended := status["state"].get("terminated"):
            seen[event["object"]["metadata"]["name"]].append(ended["exitCode"])
        gone += event["type"] == "DELETED"
        if gone == 2:
            break
    assert {name: set(codes) for name, codes in seen.items()} == {"saves": {7}, "stays": {137}}
    assert heard.read_text() == "saved\n"
    assert (tmp_path / "stays").exists()


@pytest.mark.usefixtures("kubelet")
def test_the_scheduler_places_by_selector_toleration_and_gpus(plane, namespace):
    plane.node("gpu-1", {"holdfast/pool": "a100"}, [GPU], {"nvidia.com/gpu": "4"})
    plane.node("cpu-1")
    tolerates = {"key": GPU["key"], "operator": "Exists", "effect": "NoSchedule"}
    on_pool = {"nodeSelector": {"holdfast/pool": "a100"}, "tolerations": [tolerates]}
    wanted = {name: pod(name, **on_pool) for name in ("fits", "too-many")}
    for name, gpus in (("fits", "4"), ("too-many", "5")):
        wanted[name]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": gpus}}
    plane.apply([*wanted.values(), pod("no-toleration", nodeSelector=on_pool["nodeSelector"]), pod("plain")], namespace)
    assert await_phase(plane, namespace, "fits", "Succeeded")["spec"]["nodeName"] == "gpu-1"
    assert await_phase(plane, namespace, "plain", "Succeeded")["spec"]["nodeName"] == "cpu-1"
    for name, words in (("no-toleration", "untolerated taint"), ("too-many", "Insufficient nvidia.com/gpu")):
        said = until(lambda name=name: unscheduled(plane, namespace, name))
        assert words in said
        assert get(plane, namespace, "Pod", name)["status"]["phase"] == "Pending"


def unscheduled(plane, namespace: str, name: str) -> str:
    found = plane.call("GET", plane.path("v1", "Event", namespace), fieldSelector=f"involvedObject.name={name}")
    return " ".join(each["message"] for each in found["items"] if each["reason"] == "FailedScheduling")


@pytest.mark.usefixtures("kubelet", "node")
def test_the_controller_manager_fires_a_cron_job(plane, namespace):
    tick = datetime.now(UTC) - timedelta(minutes=1)
    spec = {
        "schedule": f"{tick.minute} {tick.hour} * * *",
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 600,
        "jobTemplate": {"spec": job("nightly", "echo fired")["spec"]},
    }
    nightly = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}, "spec": spec}
    plane.apply([nightly], namespace)
    plane.fire(namespace, "nightly")
    (made,) = until(lambda: plane.call("GET", plane.path("batch/v1", "Job", namespace))["items"])
    until(lambda: get(plane, namespace, "Job", made["metadata"]["name"]).get("status", {}).get("succeeded") == 1)
    assert made["metadata"]["ownerReferences"][0]["name"] == "nightly"
    assert get(plane, namespace, "CronJob", "nightly")["status"]["lastScheduleTime"] == tick.strftime("%FT%H:%M:00Z")


@pytest.mark.usefixtures("node")
def test_the_api_server_comes_back_with_all_it_had(plane, namespace, kubelet, tmp_path):
    go = tmp_path / "go"
    plane.apply([pod("outlives", f"echo one; while [ ! -e {go} ]; do sleep 0.05; done; echo two")], namespace)
    before = await_phase(plane, namespace, "outlives", "Running")
    listed = plane.call("GET", plane.path("v1", "Pod", namespace))["metadata"]["resourceVersion"]
    watch = events(plane.open("GET", plane.path("v1", "Pod", namespace), watch="true", resourceVersion=listed))
    plane.stop_api()
    with pytest.raises(urllib3.exceptions.ProtocolError):
        list(watch)
    with pytest.raises(urllib3.exceptions.MaxRetryError, match="Connection refused"):
        get(plane, namespace, "Pod", "outlives")
    go.touch()  # the container ends while nobody can be told
    restart = threading.Thread(target=plane.start_api)  # its end does not end the server
    restart.start()
    restart.join()
    after = await_phase(plane, namespace, "outlives", "Succeeded")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert read_log(plane, namespace, "outlives") == "one\ntwo\n"
    (expired,) = events(plane.open("GET", plane.path("v1", "Pod"), watch="true", resourceVersion=1))
    assert (expired["type"], expired["object"]["code"]) == ("ERROR", 410)


@pytest.fixture
def reader(plane, namespace) -> str:
    """A service account that may list pods."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    plane.apply([account, role, binding], namespace)
    return "reader"


def asked(kubeconfig: Path, namespace: str, kind: str) -> int:
    """The status of a list of them."""
    core = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))
    try:
        getattr(core, f"list_namespaced_{kind}")(namespace)
    except ApiException as refusal:
        return refusal.status
    return 200


def test_a_service_account_may_do_what_its_role_says(plane, namespace, reader):
    mine = plane.kubeconfig_for(namespace, reader)
    until(lambda: asked(mine, namespace, "pod") == 200)
    assert asked(mine, namespace, "secret") == 403
    assert asked(mine, "default", "pod") == 403


def test_a_token_ends(plane, namespace, reader):
    mine = plane.kubeconfig_for(namespace, reader, seconds=300)
    until(lambda: asked(mine, namespace, "pod") == 200)
    assert plane.kubeconfig_for(namespace, reader, seconds=1) == mine
    time.sleep(1.1)  # asked before, the API server would take it for 10 s more
    assert asked(mine, namespace, "pod") == 401
    plane.kubeconfig_for(namespace, reader)
    assert asked(mine, namespace, "pod") == 200


def test_an_unknown_field_is_refused(plane, namespace):
    with pytest.raises(ApiException, match="nodeSelectors: field not declared in schema"):
        plane.apply([pod("wrong", nodeSelectors={"a": "b"})], namespace, dryRun="All")


def test_the_kinds_of_kuberay_and_kueue_are_known_field_by_field(plane, namespace, crds):
    if "localqueues.kueue.x-k8s.io" not in crds:
        pytest.skip("--kube-context: the cluster has no Kueue")
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "gpu"}}
    (made,) = plane.apply([{**queue, "spec": {"clusterQueue": "all"}}], namespace)
    assert made["metadata"]["namespace"] == namespace
    with pytest.raises(ApiException, match=r"\.spec\.clusterQueu: field not declared in schema"):
        plane.apply([{**queue, "spec": {"clusterQueu": "all"}}], namespace)
    rayjob = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "wrong"}}
    with pytest.raises(ApiException, match=r"\.spec\.ttlSecondsAfterFinish: field not declared in schema"):
        plane.apply([{**rayjob, "spec": {"entrypoint": "true", "ttlSecondsAfterFinish": 1}}], namespace)

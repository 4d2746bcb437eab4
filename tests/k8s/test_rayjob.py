"""A job as a RayJob: where its pods go, what they may do, and what is refused before a cluster is asked."""

from typing import Any

import pytest

from k8s import job as jobs
from k8s import pools, rayjob
from k8s.errors import Misuse
from k8s.settings import Settings

IMAGE = "registry.example/holdfast:1.2.3"
TRAIN = ("train", "recipe=digits_gradnorm")


def render(command: tuple[str, ...] = TRAIN, **settings: Any) -> dict[str, Any]:
    given = Settings(**{"image": IMAGE, **settings})
    return rayjob.rayjob(given, jobs.make(given, command))


def pods(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Head, worker, submitter."""
    spec = body["spec"]
    cluster = spec["rayClusterSpec"]
    return (
        cluster["headGroupSpec"]["template"],
        cluster["workerGroupSpecs"][0]["template"],
        spec["submitterPodTemplate"],
    )


def test_the_head_stands_on_a_safe_node_and_takes_no_work() -> None:
    body = render(pool="a10g-spot")
    head, worker, submitter = pods(body)
    assert body["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert head["spec"]["nodeSelector"] == submitter["spec"]["nodeSelector"] == {pools.LABEL: "head"}
    assert pools.GPU not in head["spec"]["containers"][0]["resources"]["limits"]
    assert worker["spec"]["nodeSelector"] == {pools.LABEL: "a10g-spot"}
    with pytest.raises(Misuse, match="head_pool=cpu is a spot pool"):
        render(head_pool="cpu")


def test_head_and_submitter_fit_on_one_node_together() -> None:
    head, _, submitter = pods(render())
    pool = pools.load("head")
    requests = [each["spec"]["containers"][0]["resources"]["requests"] for each in (head, submitter)]
    assert sum(float(each["memory"].removesuffix("Gi")) for each in requests[:1]) + 0.5 <= pool.memory
    assert float(requests[0]["cpu"]) + 0.25 <= pool.cpus


def test_gpu_workers_are_as_many_as_the_command_needs() -> None:
    body = render((*TRAIN, "workers=10"), pool="a10g-4")
    group = body["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 3
    _, worker, _ = pods(body)
    assert worker["spec"]["containers"][0]["resources"]["limits"][pools.GPU] == "4"
    assert {"key": pools.GPU, "operator": "Equal", "value": "present", "effect": "NoSchedule"} in worker["spec"][
        "tolerations"
    ]


def test_a_spot_worker_has_the_time_to_save() -> None:
    _, worker, _ = pods(render(pool="l4-spot"))
    grace = worker["spec"]["terminationGracePeriodSeconds"]
    env = {each["name"]: each["value"] for each in worker["spec"]["containers"][0]["env"]}
    assert 30 < int(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < grace == 120
    _, steady, _ = pods(render(pool="a10g-4"))
    assert "terminationGracePeriodSeconds" not in steady["spec"]


def test_a_whole_node_with_efa_gets_it_and_stays_with_its_like() -> None:
    _, worker, _ = pods(render((*TRAIN, "workers=16"), pool="a100-8"))
    limits = worker["spec"]["containers"][0]["resources"]["limits"]
    assert limits[pools.EFA] == "4"
    term = worker["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["topologyKey"] == "topology.kubernetes.io/zone"
    assert term["labelSelector"]["matchLabels"].items() <= worker["metadata"]["labels"].items()
    _, part, _ = pods(render((*TRAIN, "workers=2"), pool="a100-8", gpus=2))
    assert pools.EFA not in part["spec"]["containers"][0]["resources"]["limits"]
    for pod, asked in ((worker, True), (part, False)):
        names = {each["name"] for each in pod["spec"]["containers"][0]["env"]}
        assert ("FI_PROVIDER" in names) == asked, "who has no adapter may not be told to use one"


def test_no_pod_may_more_than_it_must() -> None:
    head, worker, submitter = pods(render(secrets=("tracking",)))
    for pod in (head, worker, submitter):
        spec, container = pod["spec"], pod["spec"]["containers"][0]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert head["spec"]["serviceAccountName"] == "holdfast-job"
    assert not worker["spec"]["automountServiceAccountToken"]
    assert not submitter["spec"]["automountServiceAccountToken"]
    assert worker["spec"]["serviceAccountName"] == "holdfast-job", "who it is to the cloud"
    for pod in (head, worker):
        assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "tracking"}}]
        assert pod["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_queue_priority_team_and_places_reach_the_objects() -> None:
    body = render(queue="gpu", priority="nightly", team="vision", tracking_uri="http://mlflow:5000", storage="s3://b/p")
    labels = body["metadata"]["labels"]
    assert labels[rayjob.QUEUE] == "gpu"
    assert labels[rayjob.PRIORITY] == "nightly"
    for pod in pods(body):
        assert pod["metadata"]["labels"]["holdfast/team"] == "vision"
    env = {each["name"]: each["value"] for each in pods(body)[0]["spec"]["containers"][0]["env"]}
    assert env["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert env["HOLDFAST_STORAGE"] == "s3://b/p"
    assert body["spec"]["shutdownAfterJobFinishes"], "Kueue wants it"


def test_nothing_is_submitted_twice_behind_our_back() -> None:
    assert render()["spec"]["submitterConfig"] == {"backoffLimit": 0}


@pytest.mark.parametrize(
    ("settings", "command", "says"),
    [
        ({"image": None}, TRAIN, "image is not set"),
        ({"image": "repo/holdfast"}, TRAIN, "names no fixed image"),
        ({"image": "host:5000/holdfast"}, TRAIN, "names no fixed image"),
        ({"image": "repo/holdfast:latest"}, TRAIN, "names no fixed image"),
        ({"gpus": 2}, TRAIN, "gpus=2 is more than a node of pool a10g-spot has"),
        ({"pool": "cpu", "gpus": 1}, TRAIN, "gpus=1: pool cpu has none"),
        ({"gpus": 0}, TRAIN, "gpus=0 on pool a10g-spot would pay"),
        ({"nodes": 1}, (*TRAIN, "workers=2"), "workers=2 of the command is more than nodes=1"),
        ({"head_memory": 64.0}, TRAIN, "head_memory=64: a node of pool head offers"),
    ],
)
def test_what_cannot_run_is_refused(settings: dict[str, Any], command: tuple[str, ...], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        render(command, **settings)


def test_an_image_by_digest_or_with_a_port_is_fixed() -> None:
    for image in ("repo/holdfast@sha256:" + "0" * 64, "host:5000/team/holdfast:1"):
        assert pods(render(image=image))[0]["spec"]["containers"][0]["image"] == image

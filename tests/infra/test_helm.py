"""The chart as helm renders it: what it refuses, and what holds for everything it makes."""

import copy
import json
import re
import shlex
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from k8s import pools, rayjob, settings
from k8s import render as rendering
from k8s import schedule as schedules
from k8s.settings import Settings
from tests.infra import helm
from tests.infra.helm import CHART, EXAMPLES, NAMESPACE, of_kind, pod_specs, render, template

ROOT = CHART.parents[2]
EVERYTHING = yaml.safe_load(helm.example("everything").read_text())
POOLS = EVERYTHING["pools"]
SHIPPED = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "k8s" / "pool").glob("*.yaml"))}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_lints(path):
    answer = helm.helm("lint", "--strict", CHART, "-f", path)
    assert answer.returncode == 0, answer.stdout


def pool(**changes: Any) -> dict[str, Any]:
    return {"pools": {"l4-spot": {**POOLS["l4-spot"], **changes}}}


def schedule(**changes: Any) -> dict[str, Any]:
    return {"schedules": [{"name": "a", "schedule": "0 3 * * *", "command": ["retrain"], **changes}]}


REFUSED = {
    "no image": ({"image": ""}, "/image"),
    "an image without a tag": ({"image": "registry.example.com:5000/holdfast"}, "/image"),
    "the latest image": ({"image": "holdfast:latest"}, "/image"),
    "the latest image with a digest": ({"image": "holdfast:latest@sha256:" + 64 * "0"}, "/image"),
    "a typo at the top": ({"trackng": {"replicas": 2}}, "trackng"),
    "a typo below": ({"tracking": {"replica": 2}}, "replica"),
    "a typo in a pool": (pool(instance_type=["g6.xlarge"]), "instance_type"),
    "a kind of capacity that is not there": (pool(capacity="preemptible"), "capacity"),
    "an instance without a size": (pool(instance_types=["g6"]), "instance_types"),
    "a GPU pool without GPUs": (pool(gpu={"type": "L4", "count": 0, "memory": 24}), "gpu"),
    "GPUs that any pod may take": (
        {**pool(taints=[]), "nodes": {"l4-spot": 1}, "queues": {"enabled": True, "headPool": "l4-spot"}},
        "pools.l4-spot.taints lacks nvidia.com/gpu: add",
    ),
    "a password in values": ({"tracking": {"database": {"password": "hunter2"}}}, "password"),
    "a password in an address": ({"tracking": {"uri": "https://me:hunter2@mlflow.example.com"}}, "uri"),
    "every host": ({"tracking": {"allowedHosts": ["*"]}}, "allowedHosts"),
    "a schedule of four fields": (schedule(schedule="0 3 * *"), "schedule"),
    "a time zone in the schedule": (schedule(schedule="TZ=UTC 0 3 * * *"), "schedule"),
    "a schedule whose RayJobs' names are too long": (schedule(name="a" * 28), "name"),
    "a schedule that names its job": (schedule(settings=["name=mine"]), "settings"),
    "a schedule with a cluster file": (schedule(settings=["cluster=mine.yaml"]), "settings"),
    "a setting of the command before it": (schedule(settings=["workers=2"]), "settings"),
    "a typo in a setting of submit": (schedule(settings=["pol=cpu"]), "settings"),
    "an environment in one word": (schedule(settings=["env=A"]), "settings"),
    "a start that the controller would miss": (schedule(startingDeadlineSeconds=5), "startingDeadlineSeconds"),
    "everybody may submit": ({"submit": {"groups": ["system:authenticated"]}}, "groups"),
    "storage that is no S3": ({"storage": {"uri": "/data"}}, "uri"),
    "nodes' image that moves": ({"karpenter": {"ami": "al2023@latest"}}, "ami"),
    "no database": ({"tracking": {"database": {"host": ""}}}, "tracking.database.host is empty: name the PostgreSQL"),
    "no bucket": ({"tracking": {"artifacts": {"bucket": ""}}}, "tracking.artifacts.bucket is empty"),
    "no MLflow at all": ({"tracking": {"enabled": False}}, "tracking.uri is empty and tracking.enabled is false"),
    "queues without a size": (
        {**pool(), "queues": {"enabled": True, "headPool": "l4-spot"}},
        "nodes.l4-spot is not set: say how many",
    ),
    "queues without a place for heads": ({**pool(), "queues": {"enabled": True}}, "pools.head is not there"),
    "pools without a role": (
        {
            **pool(),
            "nodes": {"l4-spot": 1},
            "karpenter": {"enabled": True, "discovery": {"a": "b"}, "ami": "al2023@v20261101"},
        },
        "karpenter.nodeRole is empty",
    ),
    "pools in no subnet": ({**pool(), "karpenter": {"enabled": True}}, "karpenter.discovery is empty: give the tags"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_refused_by_its_name(mistake):
    values, words = REFUSED[mistake]
    answer = template("minimal", values)
    assert answer.returncode != 0
    assert words in answer.stderr


def test_every_part_of_the_schema_is_strict():
    """Where a map is free, its values are typed, or Kubernetes checks them."""
    free = {"global", "resources", "podSelector", "namespaceSelector", "ipBlock", "quota", "tolerations", "limitRange"}

    def check(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and not free & set(path[-2:]):
                assert "additionalProperties" in node, path
            for key, child in node.items():
                check(child, (*path, key))

    check(json.loads((CHART / "values.schema.json").read_text()), ())


def test_every_default_is_in_the_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(yaml.safe_load((CHART / "values.yaml").read_text())) == set(schema["properties"]) - {"global"}


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: path.stem)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return render(request.param)


def test_everything_is_labelled_and_nothing_is_there_twice(objects):
    seen = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(seen) == len(set(seen))
    for each in objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "holdfast"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


def test_no_secret_is_made_and_none_is_shown(objects):
    assert of_kind(objects, "Secret") == {}
    for where, spec in pod_specs(objects):
        for container in spec["containers"]:
            for each in container.get("env", ()):
                if re.search("PASSWORD|SECRET|TOKEN", each["name"]):
                    assert "secretKeyRef" in each["valueFrom"], (where, each["name"])


def test_every_pod_is_restricted(objects):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root besides."""
    for where, spec in pod_specs(objects):
        of_pod = spec["securityContext"]
        assert of_pod["runAsNonRoot"] is True, where
        assert of_pod["runAsUser"] > 0, where
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), where
        assert all(set(volume) - {"name"} <= {"emptyDir", "configMap"} for volume in spec["volumes"]), where
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert container["resources"]["requests"], where
            assert container["resources"]["limits"]["memory"], where
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], where


def test_only_who_needs_the_api_has_a_token(everything):
    accounts = of_kind(everything, "ServiceAccount")
    assert {name: each["automountServiceAccountToken"] for name, each in accounts.items()} == {
        "holdfast-job": True,
        "holdfast-submit": True,
        "holdfast-retrain": True,
        "holdfast-mlflow": False,
    }
    for where, spec in pod_specs(everything):
        assert spec.get("automountServiceAccountToken", True) == ("CronJob" in where), where


def test_without_named_secrets_no_secret_can_be_read():
    """An empty ``resourceNames`` would mean all of them."""
    rules = of_kind(render("minimal"), "Role")["holdfast-submit"]["rules"]
    assert not any("secrets" in rule["resources"] for rule in rules)


def test_mlflow_is_the_servers_command_and_its_probes(everything):
    (container,) = dict(pod_specs(everything))["Deployment holdfast-mlflow"]["containers"]
    assert [*container["command"], *container["args"]] == [
        *("mlflow", "server", "--host=0.0.0.0", "--port=5000", "--workers=4", "--serve-artifacts"),
        *("--artifacts-destination=s3://example-mlflow/mlflow", "--app-name=basic-auth"),
    ]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert probes == [{"path": "/health", "port": "http"}] * 3
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["PGSSLROOTCERT"] == "/etc/database/ca.pem"
    assert "mlflow.example.com" in environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_a_jobs_file_says_where_everything_is(everything):
    text = of_kind(everything, "ConfigMap")["holdfast-cluster"]["data"]["cluster.yaml"]
    assert yaml.safe_load(text) == {
        "namespace": NAMESPACE,
        "image": EVERYTHING["image"],
        "service_account": "holdfast-job",
        "queue": "holdfast",
        "priority": "holdfast-normal",
        "tracking_uri": f"http://holdfast-mlflow.{NAMESPACE}.svc:5000",
        "storage": "s3://example-ray/runs",
        "secrets": ["mlflow-user", "s3-keys"],
    }
    plain = yaml.safe_load(
        of_kind(render("tracking-elsewhere"), "ConfigMap")["holdfast-cluster"]["data"]["cluster.yaml"]
    )
    assert plain["tracking_uri"] == "http://mlflow.example.com:8080"
    assert (plain["queue"], plain["priority"], plain["secrets"]) == (None, None, [])


def test_a_schedule_submits_under_its_jobs_name(everything):
    cronjob = of_kind(everything, "CronJob")["holdfast-digits"]["spec"]
    (container,) = cronjob["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert [*container["command"], *container["args"]] == [
        *("holdfast", "submit", "name=$(JOB)-r", "cluster=/etc/holdfast/cluster.yaml"),
        *("pool=l4-spot", "--"),
        *("retrain", "recipe=digits_gradnorm", "register_as=digits", "workers=2"),
    ]
    (job,) = (each["valueFrom"] for each in container["env"] if each["name"] == "JOB")
    assert job == {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    assert (cronjob["concurrencyPolicy"], cronjob["timeZone"]) == ("Forbid", "Europe/Berlin")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_a_schedule_submits_is_a_job(path, tmp_path):
    """Its words are read as its pod will have them, with the file that it mounts."""
    objects = render(path)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(of_kind(objects, "ConfigMap")["holdfast-cluster"]["data"]["cluster.yaml"])
    made = of_kind(objects, "CronJob")
    assert len(made) == len(yaml.safe_load(path.read_text()).get("schedules", ()))
    for name, each in made.items():
        (container,) = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        job = f"{name}-{29_000_000}"
        line = " ".join(container["args"])
        assert (line.count("$(JOB)"), line.count("/etc/holdfast/cluster.yaml")) == (1, 1)
        words = [word.replace("$(JOB)", job) for word in container["args"]]
        verb, *given = [word.replace("/etc/holdfast/cluster.yaml", str(cluster)) for word in words]
        assert verb == "submit"
        at = given.index("--")
        (body,) = yaml.safe_load_all(rendering.render(given[:at], given[at + 1 :]))
        assert (body["kind"], body["metadata"]["name"]) == ("RayJob", f"{job}-r")
        assert body["spec"]["entrypoint"].endswith(shlex.join(["holdfast", *given[at + 1 :]]))


def test_a_schedule_may_set_what_submit_knows():
    schema = json.loads((CHART / "values.schema.json").read_text())
    pattern = schema["properties"]["schedules"]["items"]["properties"]["settings"]["items"]["pattern"]
    known = set(settings.HINTS) - {"name", "cluster", "env"}
    assert set(pattern.removeprefix("^(").removesuffix(")=").split("|")) == known | {r"env\.[A-Za-z_][A-Za-z0-9_]*"}


def test_what_is_never_tried_again_is_what_the_command_says_it_is(everything):
    """As a schedule that the command itself renders."""
    ours = of_kind(everything, "CronJob")["holdfast-digits"]["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]
    settings = Settings(image="holdfast:1", namespace="holdfast")
    theirs = of_kind(schedules.cronjob(settings, ["retrain"], "0 3 * * *", "UTC"), "CronJob")
    (theirs,) = theirs.values()
    assert ours == theirs["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]


def test_the_rights_are_those_that_the_command_needs(everything):
    def flat(rules: list[dict[str, Any]]) -> set[tuple[str, ...]]:
        return {
            (group, resource, *rule.get("resourceNames", ()), verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    ours = flat(of_kind(everything, "Role")["holdfast-submit"]["rules"])
    assert ours == flat(schedules.rules(Settings(secrets=("mlflow-user", "s3-keys"))))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_command_reads_the_file_that_the_chart_writes(path, tmp_path):
    (tmp_path / "cluster.yaml").write_text(
        of_kind(render(path), "ConfigMap")["holdfast-cluster"]["data"]["cluster.yaml"]
    )
    read = settings.read([f"cluster={tmp_path / 'cluster.yaml'}"])
    assert (read.namespace, read.service_account, read.storage) == (NAMESPACE, "holdfast-job", "s3://example-ray/runs")
    assert read.secrets == (("mlflow-user", "s3-keys") if path.stem == "everything-values" else ())
    assert rayjob.image(read) == read.image


def test_quotas_and_limits_are_the_nodes_of_a_pool(everything):
    (group,) = of_kind(everything, "ClusterQueue")["holdfast"]["spec"]["resourceGroups"]
    quotas = {
        flavour["name"]: {each["name"]: each["nominalQuota"] for each in flavour["resources"]}
        for flavour in group["flavors"]
    }
    assert quotas["l4-spot"] == {
        "cpu": "184",
        "memory": "720Gi",
        "nvidia.com/gpu": 16,
        "vpc.amazonaws.com/efa": 0,
    }
    assert quotas["h100"]["vpc.amazonaws.com/efa"] == 64
    assert (quotas["head"]["cpu"], quotas["head"]["nvidia.com/gpu"]) == ("10.5", 0)
    assert all(set(quota) == set(group["coveredResources"]) for quota in quotas.values())
    limits = {name: each["spec"]["limits"] for name, each in of_kind(everything, "NodePool").items()}
    assert limits == {
        "cpu": {"nodes": 10},
        "l4-spot": {"nodes": 4, "nvidia.com/gpu": 16},
        "h100": {"nodes": 2, "nvidia.com/gpu": 16},
    }


def test_the_pools_of_jobs_are_the_pools_of_the_cluster():
    """Every shipped pool: a job's pods are allowed on its nodes, and each of them fits into its quota."""
    cluster = {"enabled": True, "nodeRole": "r", "discovery": {"a": "b"}, "ami": "al2023@v20261101"}
    nodes = dict.fromkeys(SHIPPED, 2)
    objects = render("minimal", {"pools": SHIPPED, "nodes": nodes, "queues": {"enabled": True}, "karpenter": cluster})
    flavours, made = of_kind(objects, "ResourceFlavor"), of_kind(objects, "NodePool")
    (group,) = of_kind(objects, "ClusterQueue")["holdfast"]["spec"]["resourceGroups"]
    assert set(flavours) == set(made) == set(SHIPPED)
    for name in SHIPPED:
        pool, node = pools.load(name), made[name]["spec"]["template"]
        assert node["metadata"]["labels"] == pool.selector
        assert node["spec"]["taints"] == flavours[name]["spec"]["nodeTaints"] == [dict(each) for each in pool.taints]
        assert flavours[name]["spec"]["nodeLabels"].items() <= pool.selector.items()
        requirements = {each["key"]: tuple(each["values"]) for each in node["spec"]["requirements"]}
        assert requirements["node.kubernetes.io/instance-type"] == pool.instance_types
        assert requirements["karpenter.sh/capacity-type"] == (pool.capacity,)
        assert made[name]["spec"]["disruption"]["consolidationPolicy"] == "WhenEmpty"
        if name == "head":
            continue
        quota = {each["name"]: each for each in group["flavors"]}[name]["resources"]
        spec = rayjob.raycluster_spec(Settings(image="holdfast:1", pool=name), workers=1, name="a")
        (container,) = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"]
        for resource, amount in container["resources"]["requests"].items():
            (most,) = (each["nominalQuota"] for each in quota if each["name"] == resource)
            assert parse_quantity(amount) <= parse_quantity(most), (name, resource)


def test_a_pool_of_managed_nodes_has_a_quota_and_no_node_pool(everything):
    assert "head" in of_kind(everything, "ResourceFlavor")
    assert "head" not in of_kind(everything, "NodePool")
    assert "holdfast-head" not in of_kind(everything, "EC2NodeClass")


def test_nodes_are_encrypted_and_keep_their_role(everything):
    for each in of_kind(everything, "EC2NodeClass").values():
        assert each["spec"]["metadataOptions"]["httpTokens"] == "required"
        assert each["spec"]["metadataOptions"]["httpPutResponseHopLimit"] == 1
        (device,) = each["spec"]["blockDeviceMappings"]
        assert (device["ebs"]["encrypted"], device["ebs"]["volumeType"]) == (True, "gp3")


def test_who_may_reach_whom(everything):
    policies = {name: each["spec"] for name, each in of_kind(everything, "NetworkPolicy").items()}
    assert policies["holdfast-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (inwards,) = policies["holdfast-mlflow"]["ingress"]
    ray = {"podSelector": {"matchLabels": {"app.kubernetes.io/created-by": "kuberay-operator"}}}
    assert inwards["from"][0] == ray
    assert "ingress-nginx" in str(inwards["from"][1])
    assert inwards["ports"] == [{"protocol": "TCP", "port": 5000}]
    assert "ingress" not in policies["holdfast-submit"]
    for name, spec in policies.items():
        for rule in spec.get("egress", ()):
            assert rule.get("ports") or rule["to"] == [ray], f"{name} lets everything out: {rule}"
    for pods, policy in (
        ("Deployment holdfast-mlflow", "holdfast-mlflow"),
        ("Job holdfast-mlflow-migrate", "holdfast-mlflow"),
    ):
        kind, name = pods.split()
        labels = of_kind(everything, kind)[name]["spec"]["template"]["metadata"]["labels"]
        (expression,) = policies[policy]["podSelector"]["matchExpressions"]
        assert labels[expression["key"]] in expression["values"]


@pytest.mark.parametrize(
    ("uri", "port"), [("http://a.example.com", 80), ("https://a.example.com", 443), ("http://a.example.com:81/x", 81)]
)
def test_a_server_elsewhere_can_be_reached_at_its_port(uri, port):
    policies = of_kind(render("minimal", {"tracking": {"enabled": False, "uri": uri}}), "NetworkPolicy")
    assert "holdfast-mlflow" not in policies
    ports = [each["port"] for rule in policies["holdfast-ray"]["spec"]["egress"] for each in rule.get("ports", ())]
    assert port in ports


def test_the_same_values_render_the_same(everything):
    assert copy.deepcopy(everything) == render("everything")

"""Terraform: each module under a mocked AWS, those that moto can hold applied and read back, and what checkov says."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import psycopg
import pytest
import yaml

from benchmarks import infra
from tests.infra import terraform_tree
from tests.infra.helm import template
from tests.infra.terraform_tree import ROOT, TREE
from tests.pipelines.conftest import postgres  # noqa: F401
from tests.tools import lacks

pytestmark = pytest.mark.timeout(900)
EXAMPLE = "examples/cluster"
VALUES = "tests/values.tftest.hcl"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("terraform") is None:
        lacks("terraform is not installed: https://developer.hashicorp.com/terraform/install")
    return terraform_tree.copy(tmp_path_factory.mktemp("terraform"))


class Applied(NamedTuple):
    address: str
    outputs: dict[str, Any]
    second: tuple[int, str]
    """exit code and output of the plan after the apply"""

    def client(self, service: str) -> Any:
        access = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
        return boto3.client(service, endpoint_url=self.address, **access)


class Begun(NamedTuple):
    """Each takes long and mostly waits, so all begin at once."""

    applied: "Future[Applied]"
    modules: "dict[str, Future[list[dict[str, Any]]]]"
    scanned: "Future[infra.Scan]"


@pytest.fixture(scope="module")
def begun(tree: Path) -> Iterator[Begun]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with ThreadPoolExecutor(3) as pool:
        applied = pool.submit(_apply, tree, "http://{}:{}".format(*server.get_host_and_port()))
        modules = {folder: pool.submit(_module, tree / folder) for folder in terraform_tree.folders()}
        yield Begun(applied, modules, pool.submit(infra.scan, TREE, ("terraform",)))
    server.stop()


def _module(folder: Path) -> list[dict[str, Any]]:
    terraform_tree.init(folder)
    if (folder / VALUES).exists():
        valid = terraform_tree.terraform(folder, "validate", "-json")  # it calls every module
        assert json.loads(valid.stdout)["diagnostics"] == [], "a warning is one too many"
        return [
            *terraform_tree.tested(folder, "-filter=tests/refusals.tftest.hcl"),
            *terraform_tree.tested(folder, f"-filter={VALUES}", "-verbose"),
        ]
    return terraform_tree.tested(folder)


def _apply(tree: Path, address: str) -> Applied:
    folder = tree.parent / "applied"
    shutil.copytree(tree / "modules", folder / "modules")
    shutil.copy(ROOT / "tests" / "infra" / "terraform_applied.tf", folder / "main.tf")
    terraform_tree.init(folder)
    words = ("-input=false", "-no-color", "-parallelism=40", f"-var=address={address}")
    made = terraform_tree.terraform(folder, "apply", "-auto-approve", *words)
    assert made.returncode == 0, made.stderr
    again = terraform_tree.terraform(folder, "plan", "-detailed-exitcode", *words)
    said = json.loads(terraform_tree.terraform(folder, "output", "-json").stdout)
    outputs = {name: each["value"] for name, each in said.items()}
    return Applied(address, outputs, (again.returncode, again.stdout + again.stderr))


@pytest.fixture
def applied(begun: Begun) -> Applied:
    return begun.applied.result()


def test_the_files_are_formatted(tree):
    done = terraform_tree.terraform(tree, "fmt", "-check", "-diff", "-recursive")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("folder", terraform_tree.folders())
def test_a_module_does_what_it_says(begun, folder):
    messages = begun.modules[folder].result()
    wrong = [each["diagnostic"] for each in messages if each["type"] == "diagnostic"]
    assert wrong == []
    runs = {each["test_run"]["run"]: each["test_run"]["status"] for each in messages if _ended(each)}
    written = "".join(path.read_text() for path in (TREE / folder / "tests").glob("*.tftest.hcl"))
    assert set(runs) == set(re.findall(r'^run "(\w+)"', written, re.M))
    assert set(runs.values()) == {"pass"}


def _ended(message: dict[str, Any]) -> bool:
    return message["type"] == "test_run" and message["test_run"].get("progress") == "complete"


HANDED = {"vpc_id", "subnets", "security_group_id", "node_role_arn", "cluster", "labels", "karpenter_namespace"}
"""What another module hands over, or any text may be."""
PASSED_ON = {
    "cidr",
    "nat",
    "public_access_cidrs",
    "admins",
    "submitters",
    "namespace",
    "monthly_limit",
    "budget_emails",
}
"""The example hands them to a module that checks them."""


@pytest.mark.parametrize("folder", terraform_tree.folders())
def test_every_variable_is_described_and_every_validation_refuses_something(folder):
    runs = "".join(path.read_text() for path in (TREE / folder / "tests").glob("*.tftest.hcl"))
    expected = " ".join(re.findall(r"expect_failures = \[([^\]]*)\]", runs))
    free = HANDED | (PASSED_ON if folder == EXAMPLE else set())
    variables = re.split(r"^variable ", (TREE / folder / "variables.tf").read_text(), flags=re.M)[1:]
    assert len(variables) > 2
    for text in variables:
        name = text.split('"')[1]
        assert "description" in text, name
        if "validation {" in text:
            assert re.search(rf"\bvar\.{name}\b", expected), f"no run makes {name} fail"
        else:
            assert name == "tags" or name in free or re.search(r"type\s+= bool", text), f"{name} takes anything"


@pytest.fixture
def made(begun: Begun) -> dict[str, Any]:
    """The whole example's state, under the mocked AWS."""
    messages = begun.modules[EXAMPLE].result()
    (state,) = [each["test_state"] for each in messages if each["type"] == "test_state"]
    return dict(state)


UNKNOWN_TO_IAM = {"ec2:Describe*", "pricing:GetProducts"}
"""Actions for which AWS has no resources."""


def test_no_policy_names_every_resource_or_everyone(made):
    policies = list(_policies(made["root_module"]))
    assert len(policies) > 20
    for where, statement in policies:
        if statement["Effect"] == "Deny":
            continue
        actions, found = _listed(statement["Action"]), _listed(statement.get("Resource", []))
        principal = statement.get("Principal", {})
        if principal in ("*", {"AWS": "*"}):
            assert statement["Condition"]["StringEquals"]["kms:CallerAccount"], where
        if "aws_kms_key" in where:
            continue  # a key's policy is about that key: its "*" is the key
        assert not any(action == "*" or action.endswith(":*") for action in actions), where
        if "*" in found:
            assert all(any(fnmatch.fnmatch(action, each) for each in UNKNOWN_TO_IAM) for action in actions), where


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _policies(module: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for resource in terraform_tree.resources(module):
        for key in ("policy", "assume_role_policy"):
            text = resource["values"].get(key)
            if isinstance(text, str) and text.startswith("{") and "Statement" in text:
                for statement in json.loads(text)["Statement"]:
                    yield resource["address"], statement


def test_everything_that_takes_tags_tells_its_cluster(made):
    tagged = [each for each in terraform_tree.resources(made["root_module"]) if "tags" in each["values"]]
    assert len(tagged) > 60
    bare = [each["address"] for each in tagged if "holdfast:cluster" not in (each["values"]["tags"] or {})]
    assert bare == []


def test_what_it_makes_feeds_the_chart(made, tmp_path):
    """`terraform output -raw values`, rendered by the chart with nothing added."""
    path = tmp_path / "values-aws.yaml"
    path.write_text(made["outputs"]["values"]["value"])
    done = template(path)
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    pools = {each["metadata"]["name"]: each for each in objects if each["kind"] == "NodePool"}
    assert set(pools) == {"a10g-4", "a10g-spot", "l4-spot"}
    classes = [each["spec"] for each in objects if each["kind"] == "EC2NodeClass"]
    assert {each["role"] for each in classes} == {"holdfast-karpenter-node"}
    assert "mocked.eu-central-1.rds.amazonaws.com" in done.stdout


def test_a_second_plan_finds_nothing_to_do(applied):
    code, said = applied.second
    assert code == 0, said


def test_the_buckets_are_as_asked(applied):
    s3, buckets = applied.client("s3"), applied.outputs["buckets"]
    assert set(buckets) == {"data", "ray", "mlflow"}
    for use, bucket in buckets.items():
        block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert set(block.values()) == {True}
        (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == applied.outputs["key"]
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert any("AbortIncompleteMultipartUpload" in each for each in rules)
        assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"]["TargetPrefix"] == f"{use}/"
        statements = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
        tls = {"Bool": {"aws:SecureTransport": "false"}}
        assert ("Deny", {"AWS": "*"}, tls) in [
            (each["Effect"], each["Principal"], each["Condition"]) for each in statements
        ]


def test_the_key_rotates(applied):
    kms = applied.client("kms")
    assert kms.get_key_rotation_status(KeyId=applied.outputs["key"])["KeyRotationEnabled"]
    assert "alias/holdfast" in [each["AliasName"] for each in kms.list_aliases()["Aliases"]]


def test_the_network_is_private_and_watched(applied):
    ec2, vpc = applied.client("ec2"), applied.outputs["vpc"]
    here = [{"Name": "vpc-id", "Values": [vpc]}]
    subnets = ec2.describe_subnets(Filters=here)["Subnets"]
    assert len(subnets) == 5
    assert not any(each["MapPublicIpOnLaunch"] for each in subnets)
    (flow,) = ec2.describe_flow_logs(Filters=[{"Name": "resource-id", "Values": [vpc]}])["FlowLogs"]
    assert flow["TrafficType"] == "ALL"
    groups = {each["GroupName"]: each for each in ec2.describe_security_groups(Filters=here)["SecurityGroups"]}
    assert groups["default"]["IpPermissions"] == groups["default"]["IpPermissionsEgress"] == []
    (allowed,) = groups["holdfast-endpoints"]["IpPermissions"]
    assert [each["CidrIp"] for each in allowed["IpRanges"]] == ["10.64.0.0/16"]
    assert (allowed["FromPort"], allowed["ToPort"]) == (443, 443)
    _isolated_has_no_way_out(ec2, here)


def _isolated_has_no_way_out(ec2: Any, here: list[dict[str, Any]]) -> None:
    tables = ec2.describe_route_tables(Filters=here)["RouteTables"]
    named = {tag["Value"]: each for each in tables for tag in each.get("Tags", ()) if tag["Key"] == "Name"}
    assert [route["GatewayId"] for route in named["holdfast-isolated"]["Routes"]] == ["local"]
    out = [each for each in named["holdfast-private-eu-central-1a"]["Routes"] if each.get("NatGatewayId")]
    assert [each["DestinationCidrBlock"] for each in out] == ["0.0.0.0/0"]


def test_the_roles_are_for_their_service_accounts(applied):
    iam = applied.client("iam")
    for name in ("job", "mlflow", "karpenter"):
        role = iam.get_role(RoleName=f"holdfast-{name}")["Role"]
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
        assert iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"] == []
        assert iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"] == ["what-it-needs"]


def test_mlflow_gets_a_user_of_its_own(postgres):  # noqa: F811
    """mlflow.sql by an administrator as RDS has one, no superuser; again, as when the password is to be changed."""
    server = postgres.replace("+psycopg", "")
    with psycopg.connect(server, autocommit=True) as root:
        root.execute("CREATE ROLE administrator LOGIN CREATEDB CREATEROLE")
        root.execute("CREATE ROLE stranger LOGIN")
        root.execute("ALTER DATABASE mlflow OWNER TO administrator")
    script = TREE / EXAMPLE / "mlflow.sql"
    for password in ("first", "it's"):
        command = ["psql", _as(server, "administrator"), "-v", "ON_ERROR_STOP=1", "-v", f"password={password}", "-f"]
        done = subprocess.run(
            [*command, str(script)], capture_output=True, text=True, env={**os.environ, "PGPASSWORD": ""}
        )
        assert done.returncode == 0, done.stderr
    with psycopg.connect(_as(server, "mlflow")) as own:
        own.execute("CREATE TABLE runs (id int)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(_as(server, "stranger"))


def _as(server: str, user: str) -> str:
    return server.replace("//holdfast@", f"//{user}@")


def test_checkov_finds_nothing_that_is_not_justified(begun):
    try:
        found = begun.scanned.result()
    except RuntimeError as error:
        lacks(str(error))
    assert found.unjustified == []
    assert found.passed > 150
    written = "".join(path.read_text() for path in TREE.rglob("*.tf")).count("checkov:skip=")
    assert len(found.excepted) == written, "an exception that no check asks for"

"""The MLflow of the chart: its very command and environment, on a real PostgreSQL and a real S3 API."""

import base64
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import boto3
import psycopg
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.infra import helm
from tests.infra.helm import NAMESPACE
from tests.infra.helm_process import Process
from tests.pipelines.conftest import moto_endpoint, postgres  # noqa: F401
from tests.pipelines.ports import free_ports
from tests.tools import lacks

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "p@ss/w:rd% {1}#?"
"""None of it needs escaping: it never stands in an address."""
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "hunter2-hunter2"}
AUTH = {"admin-password": "correct horse battery", "secret-key": "x" * 32}
SECRETS = {"holdfast-database": {"password": PASSWORD}, "s3-keys": KEYS, "holdfast-auth": AUTH}


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[dict[str, Any]]:  # noqa: F811
    """A database of a user that must give its password, and the values that lead there."""
    address = postgres.replace("+psycopg", "")
    with psycopg.connect(address, autocommit=True) as admin:
        admin.execute(psycopg.sql.SQL("CREATE ROLE chart LOGIN PASSWORD {}").format(psycopg.sql.Literal(PASSWORD)))
        admin.execute("CREATE DATABASE chart OWNER chart")
        (found,) = admin.execute("SHOW hba_file").fetchone() or ("",)
        rules = Path(found)
        rules.write_text(f"host all chart 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        admin.execute("SELECT pg_reload_conf()")
        yield {"host": admin.info.host, "port": admin.info.port, "name": "chart", "user": "chart", "sslmode": "disable"}


def _sql(database: dict[str, Any], query: str, password: str = PASSWORD) -> list[tuple[Any, ...]]:
    where = {"host": database["host"], "port": database["port"], "dbname": database["name"], "user": database["user"]}
    with psycopg.connect(**where, password=password) as connection:
        return connection.execute(psycopg.sql.SQL(query)).fetchall()


def test_the_database_wants_the_password(database):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        _sql(database, "SELECT 1", "another")


Chart = Callable[..., tuple[list[dict[str, Any]], str]]


@pytest.fixture(scope="module")
def chart(database: dict[str, Any], moto_endpoint: str) -> Chart:  # noqa: F811
    """The chart's objects, and the address that its server will have."""
    boto3.client(
        "s3",
        endpoint_url=moto_endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    ).create_bucket(Bucket="example-mlflow")

    def rendered(**tracking: Any) -> tuple[list[dict[str, Any]], str]:
        (port,) = free_ports(1)
        artifacts = {"bucket": "example-mlflow", "endpoint": moto_endpoint, "region": "us-east-1", "secret": "s3-keys"}
        values = {"port": port, "workers": 1, "database": database, "artifacts": artifacts, **tracking}
        return helm.render("minimal", {"tracking": values}), f"http://127.0.0.1:{port}"

    return rendered


def migrate(objects: list[dict[str, Any]], folder: Path) -> None:
    """The hook's containers, at once as in a pod; each must succeed."""
    spec = helm.of_kind(objects, "Job")["holdfast-mlflow-migrate"]["spec"]["template"]["spec"]
    running = []
    for container in spec["containers"]:
        process = Process.of(spec, container["name"], objects, SECRETS, folder)
        assert not any(PASSWORD in word for word in process.command)
        pipe = subprocess.PIPE
        running.append(
            subprocess.Popen(process.command, env=process.environment, cwd=folder, stdout=pipe, stderr=pipe, text=True)
        )
    for each in running:
        _, said = each.communicate(timeout=200)
        assert each.returncode == 0, said[-3000:]


@contextmanager
def serving(objects: list[dict[str, Any]], uri: str, folder: Path) -> Iterator[None]:
    """The Deployment's container, until the block ends, once its probe answers."""
    spec = helm.of_kind(objects, "Deployment")["holdfast-mlflow"]["spec"]["template"]["spec"]
    process = Process.of(spec, "mlflow", objects, SECRETS, folder)
    assert not any(PASSWORD in word for word in process.command)
    root = folder / "root"  # the container's is read-only: nothing may be left where it starts
    root.mkdir()
    probe = spec["containers"][0]["startupProbe"]["httpGet"]["path"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            process.command, env=process.environment, cwd=root, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while status(uri + probe) != 200:
            assert server.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"{uri}{probe} does not answer"
            time.sleep(0.2)
        yield
        assert list(root.iterdir()) == []
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=30)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def status(url: str, **headers: str) -> int:
    """0: nothing answers there."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


TRAINING = (
    *("train", "recipe=digits_standard", "register_as=digits", "epochs=1", "batch_size=16", "alarm.examples=8"),
    *("evaluation.examples=8", "evaluation.attack.steps=2", "model.arguments.blocks=1", "model.arguments.width=4"),
)


def test_a_training_logs_to_it_and_registers_through_it(chart, database, tmp_path, moto_endpoint):  # noqa: F811
    objects, uri = chart()
    migrate(objects, tmp_path / "migrate")
    assert len(_sql(database, "SELECT version_num FROM alembic_version")) == 1  # by the hook: no server has run yet
    with serving(objects, uri, tmp_path / "serve"):
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *TRAINING, f"tracking.uri={uri}", f"storage={tmp_path}/runs"],
            env={**bare, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},  # and no key of S3: the server has it
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        client = MlflowClient(uri)
        (version,) = client.search_model_versions("name='digits'")
        run = client.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        assert 0 <= run.data.metrics["robust_accuracy"] <= 1
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        (tmp_path / "note.txt").write_text("through the proxy")
        client.log_artifact(version.run_id, str(tmp_path / "note.txt"), "notes")
        got = client.download_artifacts(version.run_id, "notes/note.txt", str(tmp_path))
        assert Path(got).read_text() == "through the proxy"

        s3 = boto3.client("s3", endpoint_url=moto_endpoint, region_name="us-east-1", **_keys())
        stored = [each["Key"] for each in s3.list_objects_v2(Bucket="example-mlflow")["Contents"]]
        assert all(key.startswith("mlflow/") for key in stored)
        assert any(key.endswith("/notes/note.txt") for key in stored)
        assert any(key.endswith(".safetensors") for key in stored)

        _hosts_are_checked(uri)
    before = _sql(database, "SELECT version_num FROM alembic_version"), _sql(database, "SELECT count(*) FROM runs")
    migrate(objects, tmp_path / "again")  # an upgrade's hook
    assert before == (
        _sql(database, "SELECT version_num FROM alembic_version"),
        _sql(database, "SELECT count(*) FROM runs"),
    )


def _keys() -> dict[str, str]:
    return {name.lower(): value for name, value in KEYS.items()}


def _hosts_are_checked(uri: str) -> None:
    port, search = uri.rsplit(":", 1)[1], f"{uri}/api/2.0/mlflow/experiments/search?max_results=1"
    for host in ("holdfast-mlflow", f"holdfast-mlflow.{NAMESPACE}", f"holdfast-mlflow.{NAMESPACE}.svc", "localhost"):
        assert status(search, Host=f"{host}:{port}") == 200, host
    for host in ("evil.example.com", f"evil.example.com:{port}", f"holdfast-mlflow.other.svc:{port}", "10.1.2.3:5000"):
        assert status(search, Host=host) == 403, host
    assert status(f"{uri}/health", Host="10.1.2.3:5000") == 200  # a kubelet's probe comes so


def test_with_basic_auth_nobody_gets_in_without_a_password(chart, database, tmp_path, monkeypatch):
    if not find_spec("flask_wtf"):
        lacks("Flask-WTF is not installed: pip install 'mlflow[auth]'")
    objects, uri = chart(auth={"enabled": True})
    migrate(objects, tmp_path / "migrate")
    assert len(_sql(database, "SELECT version_num FROM alembic_version_auth")) == 1
    search = f"{uri}/api/2.0/mlflow/experiments/search?max_results=1"

    def basic(password: str) -> str:
        return "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()

    with serving(objects, uri, tmp_path / "serve"):
        assert status(f"{uri}/health") == 200  # the probes have no password
        assert status(search) == 401
        assert status(search, Authorization=basic("password1234")) == 401  # MLflow's default of old
        assert status(search, Authorization=basic(AUTH["admin-password"])) == 200
        assert status(search, Authorization=basic(AUTH["admin-password"]), Host="evil.example.com") == 403

        client = MlflowClient(uri)
        with pytest.raises(MlflowException, match="not authenticated"):
            client.create_experiment("nobody's")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")  # what a secret of job.envFrom gives a job
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", AUTH["admin-password"])
        assert client.get_experiment(client.create_experiment("somebody's")).name == "somebody's"
    assert _sql(database, "SELECT username FROM users") == [("admin",)]

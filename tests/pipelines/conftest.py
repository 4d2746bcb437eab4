"""A migrated tracking database to copy (migrating takes seconds), and a real tracking server on it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pipelines.ports import free_ports
from tests.tools import lacks

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _mlflow_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``mlflow.set_tracking_uri`` holds for the process, over ``MLFLOW_TRACKING_URI``: no test leaves one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    if mlflow := sys.modules.get("mlflow"):
        mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def _import_path() -> Iterator[None]:
    """A verb that is trusted to run code looks for it in the working folder from then on: no test leaves its own."""
    found = list(sys.path)
    yield
    sys.path[:] = found


@pytest.fixture(scope="session")
def tracking_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.tracking import server

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    server.check(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking_uri(tracking_template: Path, tmp_path: Path) -> str:
    """A SQLite tracking database of this test alone."""
    shutil.copyfile(tracking_template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


class Server:
    """A real ``mlflow server`` in a process group of its own, which can be stopped, continued, killed and restarted."""

    def __init__(self, folder: Path, port: int, database: str | None = None, **environment: str) -> None:
        self.folder, self.port, self.uri, self.environment = folder, port, f"http://127.0.0.1:{port}", environment
        self.database = database or f"sqlite:///{folder / 'mlflow.db'}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.database, "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment = {**os.environ, **quiet, **self.environment}
        self.log = (self.folder / "server.log").open("a")
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True, cwd=self.folder
        )
        self._wait()

    def _wait(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.1)
        raise RuntimeError(f"mlflow server did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}")

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait(timeout=10)
        self.log.close()


@pytest.fixture(scope="session")
def start_server(tracking_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """``start_server(**environment)``."""
    servers: list[Server] = []

    def start(**environment: str) -> Server:
        folder = tmp_path_factory.mktemp("server")
        shutil.copyfile(tracking_template, folder / "mlflow.db")
        servers.append(Server(folder, *free_ports(1), **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def mlflow_server(start_server: Callable[..., Server]) -> Server:
    """The server that the session's tests share: leave it running."""
    return start_server()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL of the session's own; its address."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), shutil.which("initdb")]
    if not found[0]:
        lacks("PostgreSQL is not installed: apt install postgresql")
    binaries, (port,) = Path(str(found[0])).parent, free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-postgres-", dir="/tmp"))
    own: list[str] = []
    if os.getuid() == 0:  # it refuses to run as root
        shutil.chown(folder, "postgres")
        own = ["runuser", "-u", "postgres", "--"]

    def call(name: str, *arguments: str) -> None:
        command = [*own, str(binaries / name), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=120)

    call("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "holdfast")
    call(
        "pg_ctl",
        "-D",
        f"{folder}/data",
        "-w",
        "-o",
        f"-p {port} -k {folder} -h 127.0.0.1",
        "-l",
        f"{folder}/log",
        "start",
    )
    call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "holdfast", "mlflow")
    yield f"postgresql+psycopg://holdfast@127.0.0.1:{port}/mlflow"
    call("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A tracking server on PostgreSQL."""
    server = Server(tmp_path_factory.mktemp("postgres"), *free_ports(1), database=postgres)
    yield server
    server.kill()


@pytest.fixture
def name() -> str:
    """Of a registered model that no other test has."""
    return f"model-{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["sqlite", "server", "postgres"])
def uri(request: pytest.FixtureRequest) -> str:
    """Each kind of registry in turn."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("tracking_uri"))
    fixture = "mlflow_server" if request.param == "server" else "postgres_server"
    return str(request.getfixturevalue(fixture).uri)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for all tests that train; two processors, whatever the machine has."""
    os.environ.update(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.1", RAY_AUTH_MODE="disabled")
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    from pipelines import cluster

    cluster.quiet()
    cluster.quiet(cluster.LOCAL)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """A real S3 API."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def bucket(
    moto_endpoint: str, credentials: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """The name of an empty bucket of this test's own."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_endpoint)
    name = request.node.name.replace("_", "-").replace("[", "-").rstrip("]").lower()[:60].strip("-")
    boto3.client("s3").create_bucket(Bucket=name)
    return name

"""A cluster for the tests: a control plane of our own, or with ``--kube-context`` any other."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.k8s import cluster
from tests.k8s.controlplane.control_plane import ControlPlane
from tests.k8s.head import Head
from tests.k8s.kubelet import Kubelet
from tests.k8s.plane import Plane, until
from tests.tools import lacks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kube-context", help="run the tests of k8s/ on this context's cluster instead of one of our own")


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("plane")
    if context := request.config.getoption("--kube-context", None):
        yield Plane.of_context(context, folder)
        return
    try:
        started = cluster.start(folder)
    except FileNotFoundError as missing:
        lacks(str(missing))
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _plane_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nodes belong to no namespace: those that a test makes up go with it. And the API server is back for the next."""
    plane = request.getfixturevalue("plane") if "plane" in request.fixturenames else None
    before = set(plane.nodes) if plane else set()
    yield
    if isinstance(plane, ControlPlane):
        plane.start_api()
        for node in plane.nodes - before:
            plane.call("DELETE", f"/api/v1/nodes/{node}")
        plane.nodes = before


@pytest.fixture
def namespace(plane: Plane) -> Iterator[str]:
    """A fresh one."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    plane.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    until(lambda: plane.call("GET", plane.path("v1", "ServiceAccount", name))["items"])  # no pod is let in before
    yield name
    plane.call("DELETE", plane.path("v1", "Namespace", "", name))
    if isinstance(plane, ControlPlane):  # elsewhere a kubelet ends them in its time
        plane.call("DELETE", plane.path("v1", "Pod", name), gracePeriodSeconds=0)


@pytest.fixture
def start_kubelet(plane: Plane, tmp_path: Path) -> Iterator[Callable[..., Kubelet]]:
    """``start_kubelet(runs=…, absent_images=…, env=…)``, for a test that does not want the plain one."""
    if not isinstance(plane, ControlPlane):
        pytest.skip("--kube-context: the nodes of a cluster that is not ours have kubelets of their own")
    started: list[Kubelet] = []

    def start(**settings: object) -> Kubelet:
        assert not started, "one kubelet has the port of all nodes"
        started.append(Kubelet(plane, tmp_path / "pods", **settings))  # type: ignore[arg-type]
        return started[0]

    yield start
    for kubelet in started:
        kubelet.stop()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A Ray head on this machine."""
    with Head() as started:
        until(lambda: started.ready, 120)
        yield started


@pytest.fixture
def kubelet(start_kubelet: Callable[..., Kubelet]) -> Kubelet:
    """Runs every pod that is bound to a node."""
    return start_kubelet()


@pytest.fixture(scope="session")
def crds(plane: Plane) -> list[str]:
    """The names of the CRDs of KubeRay, Kueue and Karpenter; of a cluster that is not ours, of those that it has."""
    if not cluster.SCHEMAS.is_dir():
        pytest.skip(f"no {cluster.SCHEMAS}: the CRDs of KubeRay, Kueue and Karpenter are not part of this repository")
    objects = cluster.definitions()
    if isinstance(plane, ControlPlane):
        cluster.install(plane, objects)
    served = cluster.served(plane, objects)
    if "rayjobs.ray.io" not in served:
        pytest.skip("--kube-context: the cluster has no KubeRay, and the tests install nothing on it")
    return served

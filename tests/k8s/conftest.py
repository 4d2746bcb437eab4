"""A cluster for the tests: a control plane of our own, or with ``--kube-context`` any other."""

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import yaml
from kubernetes.client import ApiException

from tests.k8s.controlplane.control_plane import ControlPlane
from tests.k8s.kubelet import Kubelet
from tests.k8s.plane import Object, Plane, until

HERE = Path(__file__).parent
SCHEMAS = HERE.parents[1].parent / "shared" / "schemas"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kube-context", help="run the tests of k8s/ on this context's cluster instead of one of our own")


def lacks(reason: str) -> NoReturn:
    """What a machine may lack, CI may not."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("plane")
    if context := request.config.getoption("--kube-context", None):
        yield Plane.of_context(context, folder)
        return
    version = re.search(r"k8s\.io/kubernetes (v\S+)", (HERE / "controlplane" / "go.mod").read_text())
    assert version
    cache = Path(os.environ.get("HOLDFAST_TOOLS", Path.home() / ".cache" / "holdfast"))
    binaries = cache / "kubernetes" / version[1]
    if not binaries.is_dir():
        lacks(f"no control plane in {binaries}: tests/k8s/controlplane/build makes it, in some minutes, once")
    if not (etcd := shutil.which("etcd")):
        lacks("no etcd on PATH: apt install etcd-server")
    started = ControlPlane(folder, binaries, etcd)
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


@pytest.fixture
def kubelet(start_kubelet: Callable[..., Kubelet]) -> Kubelet:
    """Runs every pod that is bound to a node."""
    return start_kubelet()


@pytest.fixture(scope="session")
def crds(plane: Plane) -> list[str]:
    """The names of the CRDs of KubeRay, Kueue and Karpenter; of a cluster that is not ours, of those that it has."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"no {SCHEMAS}: the CRDs of KubeRay, Kueue and Karpenter are not part of this repository")
    objects: list[Object] = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in sorted(SCHEMAS.glob("*/*.yaml"))]
    if isinstance(plane, ControlPlane):
        for each in objects:  # not applied: that took twice the time
            plane.call("POST", plane.path("apiextensions.k8s.io/v1", "CustomResourceDefinition"), each)
        until(lambda: all(_serves(plane, each["spec"]) for each in objects), 180)
    served = [each["metadata"]["name"] for each in objects if _serves(plane, each["spec"])]
    if "rayjobs.ray.io" not in served:
        pytest.skip("--kube-context: the cluster has no KubeRay, and the tests install nothing on it")
    return served


def _serves(plane: Plane, spec: Object) -> bool:
    try:
        for version in spec["versions"]:
            if version["served"]:
                plane.path(f"{spec['group']}/{version['name']}", spec["names"]["kind"])
    except (ApiException, KeyError):
        return False
    return True

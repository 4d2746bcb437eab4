"""docs/cluster.md from top to bottom: a real API server, scheduler and job controller, a real Ray head, real trainings.

KubeRay's part is played by ``tests.k8s.operator``, the kubelet's by ``tests.k8s.kubelet``.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from k8s.settings import HINTS
from pipelines.cli import main
from tests.k8s.cluster import accounts, nodes
from tests.k8s.head import Head
from tests.k8s.kubelet import Kubelet
from tests.k8s.operator import Operator, played
from tests.k8s.plane import Plane
from tests.pipelines.guides import ROOT, files

PAGE = ROOT / "docs" / "cluster.md"
TEXT = PAGE.read_text()
LINES = [line for text in re.findall(r"^```sh\n(.*?)^```", TEXT, re.M | re.S) for line in text.splitlines()]
SMALL = ["epochs=1", "batch_size=16", "alarm.policy=off", "evaluation.examples=8", "evaluation.attack.steps=2"]
SMALL += ["model.arguments.blocks=1", "model.arguments.width=4"]


class World:
    """A folder with the guide's files, a cluster with the guide's namespace, and a Ray head for its jobs."""

    def __init__(self, folder: Path, plane: Plane, namespace: str, head: Head) -> None:
        self.folder, self.plane, self.namespace, self.head = folder, plane, namespace, head

    def words(self, line: str) -> list[str]:
        """As written, in this namespace, with a training that takes seconds, and places that are here."""
        words = shlex.split(line)[1:]
        here = [f"namespace={self.namespace}", "pool=cpu"] if any(word.startswith("cluster=") for word in words) else []
        if "backend=ray" in words:
            words[words.index("address=http://127.0.0.1:8265")] = f"address={self.head.url}"
        if "backend=local" in words:
            here = [f"folder={self.folder}/jobs"]
        if "--" not in words:
            return [*words, *here]
        at = words.index("--")
        small = SMALL if words[at + 1] == "train" else []
        if words[0] == "submit":
            places = {"tracking_uri": f"sqlite:///{self.folder}/mlflow.db", "storage": f"{self.folder}/runs"}
            env = {"KUBECONFIG": str(self.folder / "job.kubeconfig"), "HOLDFAST_NAMESPACE": self.namespace}
            env |= {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}
            here += [f"{key}={value}" for key, value in places.items()] + [
                f"env.{key}={value}" for key, value in env.items()
            ]
        return [*words[:at], *here, *words[at:], *small]


@pytest.fixture
def world(
    crds: list[str],
    plane: Plane,
    namespace: str,
    head: Head,
    start_kubelet: Callable[..., Kubelet],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    for name, text in files(PAGE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(accounts(plane, namespace, ["tracking"])))
    plane.kubeconfig_for(namespace, "holdfast-job", path=tmp_path / "job.kubeconfig")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tracking"}, "stringData": {"MLFLOW_X": "1"}}
    plane.apply([secret], namespace)
    nodes(plane, "head")
    nodes(plane, "cpu")
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        start_kubelet(runs=lambda pod: not played(pod))
        stack.enter_context(Operator(plane, namespace, head))
        yield World(tmp_path, plane, namespace, head)


def test_the_page_has_a_file_and_its_settings_exist() -> None:
    (name, text), *pools = files(PAGE)
    assert name == "cluster.yaml"
    assert pools
    assert set(yaml.safe_load(text)) <= set(HINTS)
    known = {"cpus", "memory", "gpu", "labels", "taints", "topology", "efa", "grace_seconds", "workers", "schedules"}
    mentioned = {word.rstrip("=") for word in re.findall(r"`([a-z_]+=)[^`]*`", TEXT)}
    assert mentioned - known <= set(HINTS), "a setting the page mentions is none"


@pytest.mark.timeout(600)
def test_the_page_from_top_to_bottom(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """Each line in order; what it says is what the page says of it."""
    for line in LINES:
        code = main(world.words(line))
        out, err = capfd.readouterr()
        assert code == 0, f"{line}\n{out}\n{err}"
        if line.startswith("holdfast submit cluster="):
            assert re.search(r"submitted to namespace \S+ of https://", err)
            assert re.search(r"^holdfast: train-digits-gradnorm-\w{10} running$", err, re.M)
            assert err.rstrip().endswith("succeeded")
            assert "epoch 1/1" in out, "the command's own output"
        if line.startswith("holdfast list"):
            assert re.search(r"^train-digits-gradnorm-\w{10} .*succeeded", out, re.M)
        if line.startswith("holdfast status look"):
            assert re.search(r"^look (starting|running)", out)
        if line.startswith("holdfast logs look") or (line.endswith("-- doctor") and "--no-wait" not in line):
            assert "ok  torch" in out, "what the doctor found there"


@pytest.mark.parametrize(
    "line", [line for line in LINES if line.startswith("holdfast render") and "pools" not in line.split()]
)
def test_what_is_rendered_is_what_a_server_takes(
    crds: list[str], plane: Plane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, line: str
) -> None:
    for name, text in files(PAGE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(shlex.split(line)[1:]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    for each in documents:
        each["metadata"]["namespace"] = namespace
    plane.apply(documents, namespace, dryRun="All")

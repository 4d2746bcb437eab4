"""A light install, `holdfast[submit]`, is enough for the verbs of the cluster: they need no library of `train`."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from k8s.state import FAILURE, OK
from tests.k8s.cluster import accounts
from tests.k8s.plane import Plane

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/holdfast:1.2.3"
PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from pipelines.cli import main

try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(*sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
sys.exit(code)
"""
"""The last line of stderr: what was imported."""


def modules(extra: str) -> set[str]:
    """The names under which what an extra asks for is imported, where it is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {_plain(re.split(r"[\[<>=!~; ]", line)[0]) for line in project["optional-dependencies"][extra]}
    return {module for module, names in packages_distributions().items() if wanted & {_plain(name) for name in names}}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


HEAVY = modules("train") - modules("submit") | {"pandas"}
"""`pandas` comes with MLflow."""


def holdfast(words: Sequence[str], absent: set[str]) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """`holdfast` in a process in which those cannot be imported, and what it has imported."""
    command = [sys.executable, "-P", "-c", PROGRAM.format(absent=absent), *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return ended, set(ended.stderr.splitlines()[-1].split())


def test_the_heavy_libraries_are_known_and_can_be_taken_away() -> None:
    """Else the tests below would show nothing."""
    assert {"torch", "ray", "mlflow", "hydra", "numpy"} <= HEAVY
    ended, _ = holdfast(["train", "recipe=digits_standard"], HEAVY)
    assert ended.returncode == FAILURE
    assert re.search(r"train needs \w+: pip install 'holdfast\[train\]'", ended.stderr)


@pytest.mark.parametrize("words", [["--help"], ["submit", "--help"], ["status", "--help"], ["render", "pools"]])
def test_help_imports_no_heavy_library(words: list[str]) -> None:
    ended, imported = holdfast(words, set())
    assert ended.returncode == OK, ended.stderr
    assert ended.stdout
    assert not imported & (HEAVY | modules("submit")), "nor what talks to a cluster"


@pytest.mark.parametrize(("what", "settings"), [("RayJob", []), ("CronJob", ["schedule=0 3 * * 1", "namespace=team"])])
def test_a_light_install_renders(what: str, settings: list[str]) -> None:
    words = ["render", what.lower(), *settings, f"image={IMAGE}", "--", "retrain", "recipe=digits_standard"]
    ended, _ = holdfast(words, HEAVY)
    assert ended.returncode == OK, ended.stderr
    assert what in {each["kind"] for each in yaml.safe_load_all(ended.stdout)}


def test_a_light_install_submits(
    plane: Plane, crds: list[str], namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(accounts(plane, namespace)))
    line = ["submit", "--no-wait", f"image={IMAGE}", "name=light", "--", "train", "recipe=digits_standard"]
    ended, imported = holdfast(line, HEAVY)
    assert ended.returncode == OK, ended.stderr
    assert "kubernetes" in imported
    (made,) = plane.call("GET", plane.path("ray.io/v1", "RayJob", namespace))["items"]
    assert made["metadata"]["name"] == "light"
    listed, _ = holdfast(["list"], HEAVY)
    assert "light" in listed.stdout
    cancelled, _ = holdfast(["cancel", "light"], HEAVY)
    assert cancelled.returncode == OK, cancelled.stderr
    assert plane.call("GET", plane.path("ray.io/v1", "RayJob", namespace))["items"] == []

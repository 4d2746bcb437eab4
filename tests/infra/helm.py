"""The chart, rendered by the real helm."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.tools import lacks

Object = dict[str, Any]
CHART = Path(__file__).resolve().parents[2] / "infra" / "helm" / "holdfast"
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
NAMESPACE, RELEASE, KUBERNETES = "ml", "holdfast", "1.36.3"
INSTALL = "GOBIN=~/.cache/holdfast/bin go install helm.sh/helm/v3/cmd/helm@v3.20.0"


@functools.cache
def binary() -> str:
    tools = Path(os.environ.get("HOLDFAST_TOOLS", "~/.cache/holdfast")).expanduser() / "bin"
    if found := shutil.which("helm", path=f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"):
        return found
    lacks(f"helm is not installed: {INSTALL}")


def helm(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """``values`` go in through standard input, over those of earlier ``-f``."""
    command = [binary(), *map(str, arguments), *(("-f", "-") if values is not None else ())]
    return subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True, timeout=120)


def example(name: str) -> Path:
    return CHART / "ci" / f"{name}-values.yaml"


def template(
    base: str | Path, values: Mapping[str, Any] | None = None, *options: str
) -> subprocess.CompletedProcess[str]:
    path = base if isinstance(base, Path) else example(base)
    where = ("-n", NAMESPACE, "--kube-version", KUBERNETES)
    return helm("template", RELEASE, CHART, *where, *options, "-f", path, values=values)


def render(base: str | Path, values: Mapping[str, Any] | None = None, *options: str) -> list[Object]:
    answer = template(base, values, *options)
    assert answer.returncode == 0, answer.stderr
    return [each for each in yaml.safe_load_all(answer.stdout) if each]


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if each["kind"] in ("Deployment", "Job", "CronJob"):
            yield f"{each['kind']} {each['metadata']['name']}", spec["template"]["spec"]

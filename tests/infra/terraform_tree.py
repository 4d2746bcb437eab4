"""Terraform's tree in a folder of its own, and the commands on it: nothing is written into the repository."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.tools import lacks

ROOT = Path(__file__).parents[2]
TREE = ROOT / "infra" / "terraform"
PROVIDER = "registry.terraform.io/hashicorp/aws"
MIRRORS = ("/opt", "/usr/share", "/usr/local/share", "/var/lib", "~/.terraform.d", "~/.local/share")
WAIT = 800


def folders() -> list[str]:
    """Of every module and the example."""
    return sorted(str(path.parent.relative_to(TREE)) for path in TREE.glob("*/*/main.tf"))


def mirror() -> Path | None:
    """A folder with the AWS provider, where Terraform's own places and a machine's image have one."""
    for root in MIRRORS:
        for depth in ("", "*/", "*/*/"):
            for found in Path(root).expanduser().glob(f"{depth}{PROVIDER}"):
                return found.parents[2]
    return None


def copy(folder: Path) -> Path:
    """The tree, beside the pools that the example reads; returns where it lies."""
    shutil.copytree(TREE, folder / "infra" / "terraform", ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    shutil.copytree(ROOT / "k8s" / "pool", folder / "k8s" / "pool")
    return folder / "infra" / "terraform"


def terraform(folder: Path, *words: str, timeout: float = WAIT) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "AWS_"))}
    environment |= {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    command = ["terraform", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


def init(folder: Path) -> None:
    found = mirror()
    where = [f"-plugin-dir={found}"] if found else []
    done = terraform(folder, "init", "-backend=false", "-input=false", "-no-color", *where)
    if done.returncode and not found:
        lacks(f"no mirror holds {PROVIDER}, and the registry does not give it: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr


def tested(folder: Path, *options: str) -> list[dict[str, Any]]:
    """The messages of ``terraform test``: each run's end and what it found wrong; with ``-verbose`` what it made."""
    done = terraform(folder, "test", "-json", *options)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def resources(module: dict[str, Any]) -> list[dict[str, Any]]:
    below = [each for child in module.get("child_modules", ()) for each in resources(child)]
    return [*module.get("resources", ()), *below]

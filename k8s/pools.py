"""A pool: nodes of one kind that a job's workers may take.  A YAML file each, in ``k8s/pool`` or a folder of yours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from k8s.errors import Misuse, nearest

SHIPPED = Path(__file__).with_name("pool")
LABEL = "holdfast/pool"
"""The label that every node of a pool carries."""
SPOT, ON_DEMAND = "spot", "on-demand"
GPU, EFA = "nvidia.com/gpu", "vpc.amazonaws.com/efa"


@dataclass(frozen=True)
class Gpu:
    """``count`` a node, each with ``memory`` GiB; ``type``: as the vendor names it."""

    type: str
    count: int
    memory: float


@dataclass(frozen=True)
class Pool:
    """``cpus`` and ``memory`` (GiB): what a node offers to pods, which is less than it has.

    ``capacity``: spot or on-demand.  ``topology``: the node label within whose value a job's workers stay together.
    ``efa``: Elastic Fabric Adapters a node.  ``grace_seconds``: from a worker's notice to its end; AWS takes a spot
    node back 120 s after its notice.
    """

    name: str
    instance_types: tuple[str, ...]
    capacity: str
    cpus: float
    memory: float
    gpu: Gpu | None = None
    labels: Mapping[str, str] | None = None
    taints: tuple[Mapping[str, str], ...] = ()
    topology: str | None = None
    efa: int = 0
    grace_seconds: int = 120

    def __post_init__(self) -> None:
        if self.capacity not in (SPOT, ON_DEMAND):
            raise Misuse(f"pool {self.name}: capacity={self.capacity}; choose {SPOT} or {ON_DEMAND}")
        if min(self.cpus, self.memory, self.grace_seconds) <= 0 or self.efa < 0 or not self.instance_types:
            raise Misuse(f"pool {self.name}: instance_types, cpus, memory and grace_seconds must be given and above 0")
        if self.gpu and self.gpu.count < 1:
            raise Misuse(f"pool {self.name}: gpu.count={self.gpu.count}; leave gpu out for a pool without")

    @property
    def gpus(self) -> int:
        """A node."""
        return self.gpu.count if self.gpu else 0

    @property
    def selector(self) -> dict[str, str]:
        return {LABEL: self.name, **(self.labels or {})}

    @property
    def tolerations(self) -> list[dict[str, str]]:
        return [{"operator": "Equal", **taint} for taint in self.taints]

    def share(self, gpus: int) -> tuple[int, int]:
        """Processors and GiB of memory of a pod with so many of the node's GPUs."""
        part = gpus / self.gpus if self.gpus else 1.0
        return max(1, math.floor(self.cpus * part)), max(1, math.floor(self.memory * part))


def load(name: str, folder: str | Path | None = None) -> Pool:
    """Errors: ``Misuse`` for an unknown pool and a file that describes none."""
    found = names(folder)
    if name not in found:
        raise Misuse(f"pool={name} is unknown{nearest(name, found)}; there are {', '.join(sorted(found))}")
    try:
        content = yaml.safe_load(found[name].read_text())
    except yaml.YAMLError as error:
        raise Misuse(f"{found[name]} is not YAML ({str(error).splitlines()[0]})") from error
    return read(name, content, str(found[name]))


def names(folder: str | Path | None = None) -> dict[str, Path]:
    """Of all pools; one of ``folder`` hides a shipped one of its name.  Errors: ``Misuse`` for a folder that is not."""
    if folder is not None and not Path(folder).is_dir():
        raise Misuse(f"pools={folder}: no such folder; it holds NAME.yaml for each of your pools")
    folders = [SHIPPED, *([Path(folder)] if folder is not None else [])]
    return {path.stem: path for each in folders for path in sorted(each.glob("*.yaml"))}


def read(name: str, content: Any, where: str) -> Pool:
    known = {field.name for field in fields(Pool)} - {"name"}
    if not isinstance(content, Mapping):
        raise Misuse(f"{where} does not describe a pool; see one of {SHIPPED}")
    if unknown := sorted(set(content) - known):
        raise Misuse(f"{where}: {unknown[0]} is unknown{nearest(unknown[0], known)}")
    try:
        gpu = Gpu(**content["gpu"]) if content.get("gpu") else None
        lists = {key: tuple(content.get(key) or ()) for key in ("instance_types", "taints")}
        return Pool(name=name, **{**content, **lists, "gpu": gpu})
    except (TypeError, ValueError) as error:
        raise Misuse(f"{where} does not describe a pool ({error}); see one of {SHIPPED}") from error

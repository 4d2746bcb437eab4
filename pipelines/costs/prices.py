"""A price file: what a node of each pool costs an hour, and how many GPUs or processors that hour is shared among."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.build import nearest
from pipelines.errors import Misuse, first_line
from pipelines.tracking.holding import Start

KEYS = ("node_hour", "gpus", "cpus")


@dataclass(frozen=True)
class Price:
    """Of an hour of a node, which has so many ``gpus``, or, where it has none, so many ``cpus``."""

    node_hour: float
    gpus: float
    cpus: float

    def hour(self, start: Start) -> float | None:
        """Of all that ``start`` held; None if it held processors of a pool whose nodes are sold by their GPUs, or the
        other way about."""
        held, node = (start.gpus, self.gpus) if start.gpus else (start.cpus, self.cpus)
        return self.node_hour * held / node if node else None


@dataclass(frozen=True)
class Prices:
    """``where``: how the command line named them."""

    where: str
    currency: str
    pools: Mapping[str, Price]

    def why_not(self, start: Start) -> str | None:
        """Why there is no price for ``start``; None if there is one."""
        if start.pool is None:
            return "starts on no pool (set HOLDFAST_POOL where they run, as holdfast submit does)"
        if start.pool not in self.pools:
            return f"starts on pool {start.pool}, which {self.where} does not name (add pools.{start.pool})"
        if self.pools[start.pool].hour(start) is None:
            kind = "gpus" if start.gpus else "cpus"
            return f"starts on {kind} of pool {start.pool} (add pools.{start.pool}.{kind} to {self.where})"
        return None

    def hour(self, start: Start) -> float:
        price = self.pools[start.pool].hour(start) if start.pool else None
        assert price is not None, "ask why_not first"
        return price


def of_file(path: str) -> Prices:
    """Errors: ``Misuse``."""
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text())
    except OSError as error:
        raise Misuse(f"prices={path} cannot be read ({error.strerror}); correct the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Misuse(f"prices={path} is not YAML ({first_line(error)}); see `holdfast recipes prices`") from error
    return read(content, f"prices={path}")


def read(content: Any, where: str) -> Prices:
    """Errors: ``Misuse`` for an unknown key, and a number that cannot be."""
    fields = _fields(content, ("currency", "pools"), where, "")
    currency, pools = fields.get("currency"), fields.get("pools")
    if not isinstance(currency, str) or not currency:
        raise Misuse(f"{where}: currency={currency} must be a word, such as currency: USD")
    if not isinstance(pools, Mapping) or not pools:
        raise Misuse(f"{where}: pools must name at least one pool, such as pools: {{cpu: {{node_hour: 1, cpus: 8}}}}")
    return Prices(where, currency, {str(name): _price(str(name), node, where) for name, node in pools.items()})


def _price(name: str, node: Any, where: str) -> Price:
    fields = _fields(node, KEYS, where, f"pools.{name}.")
    if "node_hour" not in fields or not {"gpus", "cpus"} & fields.keys():
        raise Misuse(f"{where}: pools.{name} must have node_hour, and gpus or cpus, those of a node")
    for key, value in fields.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        if not number or (key != "node_hour" and value == 0):
            least = "not be negative" if key == "node_hour" else "be above 0"
            raise Misuse(f"{where}: pools.{name}.{key}={value} must be a number and {least}; correct it")
    return Price(float(fields["node_hour"]), float(fields.get("gpus", 0)), float(fields.get("cpus", 0)))


def _fields(node: Any, known: tuple[str, ...], where: str, prefix: str) -> dict[str, Any]:
    if not isinstance(node, Mapping):
        raise Misuse(f"{where}: {prefix.rstrip('.') or 'it'} must have the keys {', '.join(known)}, not be {node!r}")
    for key in node:
        if key not in known:
            raise Misuse(f"{where}: {prefix}{key} is unknown{nearest(str(key), list(known))}")
    return {str(key): value for key, value in node.items()}

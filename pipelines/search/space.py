"""A search space: which settings of a training are tried, and which values of each."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Misuse

KINDS = ("grid", "choice", "uniform", "log", "int")
"""``grid`` and ``choice``: a list of values, all of them or any; ``uniform``, ``log``, ``int``: ``[low, high]``."""
JUDGES = ("threat", "alarm", "evaluation", "data.source", "data.validation", "data.test", "data.split_seed")
"""What a trial is judged by: the same for all of them."""
PLACES = (
    "name",
    "storage",
    "tracking",
    "json",
    "register_as",
    "recipe",
    "checkpoint",
    "report",
    "workers",
    "device",
    "parallel",
    "data.path",
)
"""What says where and how a training runs."""


@dataclass(frozen=True)
class Axis:
    """``key``: a setting of a training, such as ``objective.weight``.  ``values``: those of a list, or low and high."""

    key: str
    kind: str
    values: tuple[Any, ...]

    @property
    def listed(self) -> bool:
        return self.kind in ("grid", "choice")

    @property
    def tried(self) -> tuple[Any, ...]:
        """Values that show whether all of them can be: those of a list, both ends of a range."""
        return self.values

    def named(self, message: str) -> bool:
        """Whether ``message`` begins with it; a part of a training knows the last word of its setting only."""
        return message.startswith((self.key, f"{self.key.rpartition('.')[2]}="))

    def domain(self) -> Any:
        """Ray Tune's."""
        from ray import tune

        if self.kind == "grid":
            return tune.grid_search(list(self.values))
        if self.kind == "choice":
            return tune.choice(list(self.values))
        low, high = self.values
        if self.kind == "int":
            return tune.randint(int(low), int(high) + 1)
        return tune.uniform(low, high) if self.kind == "uniform" else tune.loguniform(low, high)


def axes(space: Mapping[str, Any], algorithm: str) -> tuple[Axis, ...]:
    """The axes of ``search.space``, nested as Hydra nests them.  Errors: ``Misuse`` for what spans nothing."""
    found = tuple(_axes(space, "")) if space else ()
    if not found:
        raise Misuse("search.space is empty: name a setting and its values, search.space.objective.weight.log=[0.1,10]")
    for axis in found:
        _refuse(axis.key)
        if (axis.kind == "grid") != (algorithm == "grid"):
            remedy = "a list, grid: [...]" if algorithm == "grid" else "choice: [...], or search.algorithm=grid"
            raise Misuse(
                f"search.space.{axis.key}.{axis.kind} does not go with search.algorithm={algorithm}; use {remedy}"
            )
    return found


def _refuse(key: str) -> None:
    """Errors: ``Misuse`` for a setting that a search cannot be over."""
    parts = key.split(".")
    above = {parts[0], ".".join(parts[:2])}
    if parts[0] == "threat":
        raise Misuse(
            f"search.space.{key}: each trial would be judged at its own threat, and the smallest eps would "
            f"always win; search objective.{key}, the threat that trains"
        )
    if key == "data" or above & set(JUDGES):
        raise Misuse(
            f"search.space.{key}: each trial would be judged by another {key}, and the easiest would win; give {key} "
            "once, beside the search"
        )
    if above & set(PLACES):
        raise Misuse(
            f"search.space.{key}: it says where and how a training runs, and changes nothing of what it finds; give "
            f"{key} once, beside the search"
        )


def _axes(node: Any, key: str) -> Iterator[Axis]:
    if not isinstance(node, Mapping) or not node:
        raise Misuse(f"search.space.{key}: say which values, {key}: {{log: [0.1, 10]}}; one of {', '.join(KINDS)}")
    for name, below in node.items():
        if name in KINDS and isinstance(below, Sequence) and not isinstance(below, str):
            if len(node) > 1:
                raise Misuse(f"search.space.{key} has {', '.join(node)}: give one of {', '.join(KINDS)}")
            yield _axis(key, str(name), tuple(below))
        else:
            yield from _axes(below, f"{key}.{name}".lstrip("."))


def _axis(key: str, kind: str, values: tuple[Any, ...]) -> Axis:
    where = f"search.space.{key}.{kind}={list(values)}"
    if kind in ("grid", "choice"):
        if not values or len(set(map(str, values))) < len(values):
            raise Misuse(f"{where} is empty or names a value twice; give each once")
        return Axis(key, kind, values)
    numbers = all(type(value) in (int, float) and math.isfinite(value) for value in values)
    if len(values) != 2 or not numbers or not values[0] < values[1]:
        raise Misuse(f"{where} is no range: give [low, high], two numbers")
    if kind == "int" and not all(isinstance(value, int) for value in values):
        raise Misuse(f"{where} must be whole numbers; use uniform for numbers between")
    if kind == "log" and values[0] <= 0:
        raise Misuse(f"{where} must begin above 0, as it has a logarithm")
    return Axis(key, kind, values)


def overrides(sample: Mapping[str, Any]) -> list[str]:
    """What a trial adds to the command line, every digit of it."""
    return [f"{key}={'null' if value is None else value}" for key, value in sorted(sample.items())]


def rounded(sample: Mapping[str, Any], found: Sequence[Axis]) -> dict[str, Any]:
    """``sample`` with four digits of what was drawn from a range; a listed value stays as it was given."""
    ranges = {axis.key: axis.values for axis in found if not axis.listed and axis.kind != "int"}
    return {
        key: min(max(float(f"{value:.4g}"), ranges[key][0]), ranges[key][1]) if key in ranges else value
        for key, value in sample.items()
    }


def check(found: Sequence[Axis], refuse: Callable[[Sequence[str]], Any]) -> None:
    """Every value of a list, and both ends of a range, as ``refuse`` sees it.  Errors: ``Misuse``."""
    first = {axis.key: axis.values[0] for axis in found}
    for axis in found:
        for value in axis.tried:
            try:
                refuse(overrides({**first, axis.key: value}))
            except Misuse as error:
                named = (each for each in found if each.named(str(error)))
                alone = (each for each in found if value is first[axis.key] and _refused(refuse, each))
                guilty = next(named, None) or next(alone, axis)
                raise Misuse(f"search.space.{guilty.key}: {error}") from error


def _refused(refuse: Callable[[Sequence[str]], Any], axis: Axis) -> bool:
    """Whether the first value of ``axis`` is, over the recipe's own of all others."""
    try:
        refuse(overrides({axis.key: axis.values[0]}))
    except Misuse:
        return True
    return False


def size(found: Sequence[Axis]) -> int | None:
    """How many points it has; None for a range."""
    return math.prod(len(axis.values) for axis in found) if all(axis.listed for axis in found) else None

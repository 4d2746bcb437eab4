"""What a search was asked for, and what of it cannot be: refused before any work."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import compose, outcome, parts, places, storage
from pipelines.errors import Misuse, first_line
from pipelines.prepare import prepare
from pipelines.search import front, space, tuner
from pipelines.search.space import Axis
from pipelines.settings import Tune
from trainers.activations.replace import KINKED, NAMES

SEARCH = "search.json"
"""In the search's folder of ``storage``: the command that began it, for ``resume``."""
OURS = tuple(Tune.__dataclass_fields__)


@dataclass(frozen=True)
class Asked:
    """``lines``: the command's, ``theirs`` of them the trainings'.  ``config``: of the search, ``base``: of a training.
    ``notes``: what will disappoint.  ``identity``: what the search computes."""

    lines: tuple[str, ...]
    theirs: tuple[str, ...]
    recipes: Path | None
    config: dict[str, Any]
    base: dict[str, Any]
    axes: tuple[Axis, ...]
    notes: tuple[str, ...]
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        return compose.digest(self.identity)

    @property
    def name(self) -> str:
        return str(self.config["name"] or f"{self.base['recipe']}-search-{self.digest[:10]}")

    @property
    def folder(self) -> str:
        return places.at(self.base["storage"], self.name)

    @property
    def uri(self) -> str:
        return str(self.base["tracking"]["uri"])

    @property
    def trials(self) -> int:
        search = self.config["search"]
        return (space.size(self.axes) or 0) if search["algorithm"] == "grid" else int(search["trials"])

    def remember(self) -> None:
        """For ``resume``: the command, under the name that was made for it."""
        lines = self.lines if self.config["name"] else (*self.lines, f"name={self.name}")
        kept = {"lines": lines, "recipes": str(self.recipes.resolve()) if self.recipes else None}
        storage.write(f"{self.folder}/{SEARCH}", (json.dumps(kept, indent=2) + "\n").encode())


def asked(lines: Sequence[str], recipes: Path | None, out: str | None) -> Asked:
    """Errors: ``Misuse``."""
    lines, recipes = _resumed(lines, recipes)
    ours = [line for line in lines if line.lstrip("+").partition("=")[0].partition(".")[0] in OURS]
    theirs = [line for line in lines if line not in ours]
    config = compose.compose("tune", ours, recipes)
    base = places.located(compose.compose("train", theirs, recipes))
    search = config["search"]
    axes = space.axes(search["space"], search["algorithm"])
    tuner.check(search, axes)
    _check(config, base)
    outcome.check(out)
    axes, notes = _kinks(axes, base, config["prune_relu"])
    space.check(axes, lambda more: compose.compose("train", [*theirs, *more], recipes))
    data, _ = prepare(base)
    identity = {
        "training": compose.computed(base),
        "search": search,
        "data": data.digest,
        "axes": [axis.key for axis in axes],
    }
    return Asked(tuple(lines), tuple(theirs), recipes, config, base, axes, tuple(notes), identity)


def _resumed(lines: Sequence[str], recipes: Path | None) -> tuple[list[str], Path | None]:
    """The lines and the folder of recipes of the search that ``resume=NAME`` names, where it is given."""
    named = [line.partition("=")[2] for line in lines if line.startswith("resume=")]
    if not named:
        return list(lines), recipes
    where = [line.partition("=")[2] for line in lines if line.startswith("storage=")] or ["runs"]
    if others := [line for line in lines if not line.startswith(("resume=", "storage="))]:
        raise Misuse(f"resume={named[0]} goes on with the search as it was begun: leave {', '.join(others)} out")
    path = f"{where[0].rstrip('/')}/{named[0]}/{SEARCH}"
    try:
        with storage.files(path).open(path) as file:
            begun = json.loads(file.read())
        return list(begun["lines"]), recipes or (Path(begun["recipes"]) if begun["recipes"] else None)
    except FileNotFoundError as error:
        raise Misuse(f"resume={named[0]}: {path} is not there; correct the name, or storage=") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Misuse(
            f"resume={named[0]}: {path} is not whole ({first_line(error)}); give the search's own lines"
        ) from error


def _check(config: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    front.rule(config["choose"])
    for name, least in (("finalists", 1), ("seeds", 1), ("concurrent", 1), ("examples", 1)):
        if config[name] is not None and config[name] < least:
            raise Misuse(f"{name}={config[name]} must be at least {least}")
    if base["alarm"]["policy"] == "off":
        raise Misuse(
            "alarm.policy=off: a search compares what the alarm measures after each epoch; set alarm.policy=warn"
        )


def _kinks(axes: Sequence[Axis], base: Mapping[str, Any], prune: bool) -> tuple[tuple[Axis, ...], list[str]]:
    """ReLU under a gradient penalty: warned of, or, when asked, left out.  Its weight and eps are one axis."""
    if not parts.objective(base).second_order:
        return tuple(axes), []
    if {"objective.weight", "objective.threat.eps"} <= {axis.key for axis in axes}:
        raise Misuse(
            "search.space has objective.weight and objective.threat.eps, and the penalty feels only their product: "
            "search objective.weight alone"
        )
    found, notes = [], []
    for axis in axes:
        bad = [v for v in axis.values if axis.key == "model.activation" and issubclass(NAMES.get(v, object), KINKED)]
        if bad and prune:
            axis = Axis(axis.key, axis.kind, tuple(v for v in axis.values if v not in bad))
            if not axis.values:
                raise Misuse(f"search.space.{axis.key}: prune_relu=true leaves nothing of it; add gelu or silu")
        elif bad:
            notes.append(
                f"search.space.{axis.key} holds {', '.join(map(str, bad))}: its second derivative is zero almost "
                "everywhere and a gradient penalty hardly trains; prune_relu=true leaves it out"
            )
        found.append(axis)
    return tuple(found), notes

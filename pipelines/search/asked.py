"""What a search was asked for, and what of it cannot be: refused before any work."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipelines import compose, outcome, parts, places, storage, validate
from pipelines.build import check
from pipelines.errors import Misuse, first_line
from pipelines.prepare import prepare
from pipelines.redact import HIDDEN, redact
from pipelines.search import front, space, tuner
from pipelines.search.space import Axis
from pipelines.settings import Tune
from trainers import optimizers
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

    @property
    def placed(self) -> list[str]:
        """Places of the training, absolute: for trials, which run in folders of their own, and for ``resume``."""
        local = {"tracking.uri": self.uri, "data.path": self.base["data"].get("path")}
        local["model.weights"] = self.base["model"]["weights"] if self.base["model"]["weights"] != "timm" else None
        return [f"{key}={value}" for key, value in local.items() if value]

    def remember(self) -> None:
        """For ``resume``: the command, under the name that was made for it, without credentials.  Where it lies is
        where it is found."""
        named = [] if self.config["name"] else [f"name={self.name}"]
        moved = {"storage", *map(_key, self.placed)}
        lines = [*(line for line in self.lines if _key(line) not in moved), *self.placed, *named]
        kept = {
            "lines": [_redacted(line) for line in lines],
            "recipes": str(self.recipes.resolve()) if self.recipes else None,
        }
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
    data, doubts = prepare(base)
    space.check(axes, _refusal(theirs, recipes, base, data))
    axes, notes = _kinks(axes, base, config["prune_relu"])
    notes += [doubt for doubt in doubts if not any(axis.key in doubt for axis in axes)]  # its remedy is searched
    identity = {
        "training": compose.computed(base),
        "search": search,
        "data": data.digest,
        "axes": {axis.key: {axis.kind: list(axis.values)} for axis in axes},
    }
    return Asked(tuple(lines), tuple(theirs), recipes, config, base, axes, tuple(notes), identity)


def _key(line: str) -> str:
    return line.lstrip("+").partition("=")[0]


def _redacted(line: str) -> str:
    name, _, value = line.partition("=")
    return f"{name}={redact({_key(line): value})[_key(line)]}"


def _resumed(lines: Sequence[str], recipes: Path | None) -> tuple[list[str], Path | None]:
    """The lines and the folder of recipes of the search that ``resume=NAME`` names, where it is given.

    Beside it stand ``storage=``, ``tracking.uri=``, and what holds credentials, which were not kept.
    """
    given = {_key(line): line for line in lines}
    if "resume" not in given:
        return list(lines), recipes
    name = given.pop("resume").partition("=")[2]
    where = given.pop("storage", "storage=runs").partition("=")[2].rstrip("/")
    if others := [line for key, line in given.items() if key != "tracking.uri" and _redacted(line) == line]:
        raise Misuse(f"resume={name} goes on with the search as it was begun: leave {', '.join(others)} out")
    path = f"{where}/{name}/{SEARCH}"
    try:
        with storage.files(path).open(path) as file:
            begun = json.loads(file.read())
        kept = [str(line) for line in begun["lines"] if _key(line) not in ("storage", *given)]
        recipes = recipes or (Path(begun["recipes"]) if begun["recipes"] else None)
    except FileNotFoundError as error:
        raise Misuse(f"resume={name}: {path} is not there; correct the name, or storage=") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misuse(
            f"resume={name}: {path} is not whole ({first_line(error)}); give the search's own lines"
        ) from error
    if hidden := [_key(line) for line in kept if HIDDEN in line]:
        raise Misuse(
            f"resume={name}: {', '.join(hidden)} had credentials, which {path} does not keep; give "
            f"{' '.join(f'{key}=VALUE' for key in hidden)} beside resume={name}"
        )
    return [*kept, *given.values(), f"storage={where}"], recipes


def _refusal(
    theirs: Sequence[str], recipes: Path | None, base: Mapping[str, Any], data: Any
) -> Callable[[Sequence[str]], None]:
    """``prepare`` of a training with more lines, but for what is the same in all: each set and network is made once."""
    sets, networks = {json.dumps(base["data"]): data}, {json.dumps(base["model"])}

    def refuse(more: Sequence[str]) -> None:
        config = places.located(compose.compose("train", [*theirs, *more], recipes))
        validate.numbers(config)
        objective = parts.objective(config)
        check(config["optimizer"], "optimizer", config["trust"])
        try:
            if (key := json.dumps(config["data"])) not in sets:
                sets[key] = parts.data(config)
            parts.settings(config, len(sets[key].classes))
            decay = config["optimizer"].get("weight_decay", 0.0)
            optimizers.build(nn.Linear(1, 1), parts.optimizer(config), decay)
            if (key := json.dumps(config["model"])) not in networks:
                parts.network(config, data, objective.second_order)
                networks.add(key)
        except (ValueError, TypeError, FileNotFoundError) as error:
            raise Misuse(str(error)) from error

    return refuse


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

"""From a command line's overrides to one plain, resolved, checked config."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipelines import build, settings
from pipelines.errors import Misuse

CONFIGS = Path(__file__).parent / "configs"
for _verb in (
    settings.Train,
    settings.Evaluate,
    settings.Promote,
    settings.Rollback,
    settings.Models,
    settings.Cost,
    settings.Tune,
    settings.Retrain,
    settings.Timetable,
):
    ConfigStore.instance().store(name=f"schema_{_verb.__name__.lower()}", node=_verb)

# Settings that say where and how a run is watched, not what it computes: they leave its name alone.
INCIDENTAL = (
    "name",
    "json",
    "tracking",
    "storage",
    "register_as",
    "report",
    "checkpoint",
    "workers",
    "device",
    "parallel",
)

OPEN = (
    "model.arguments",
    "model.activation_parameters",
    "report.beside.arguments",
    "report.beside.activation_parameters",
    "threats",
    "submission",
    "search.space",
    "search.weights",
)
"""Settings whose keys belong to what is made of them, which refuses those it does not take."""


def folders(recipes: Path | None) -> list[Path]:
    """Where choices are looked for: the user's own folder first, then ours."""
    if recipes is not None and not recipes.is_dir():
        raise Misuse(f"--recipes {recipes}: no such folder; it holds recipe/NAME.yaml and any other group's choices")
    return [*([recipes.resolve()] if recipes else []), CONFIGS]


def choices(group: str, recipes: Path | None = None) -> dict[str, Path]:
    """The choices of a config group by name; names that begin with ``_`` are parts of others."""
    found: dict[str, Path] = {}
    for folder in reversed(folders(recipes)):
        for path in sorted((folder / group).glob("*.yaml")):
            if not path.name.startswith("_"):
                found[path.stem] = path
    return dict(sorted(found.items()))


def describe(path: Path) -> str:
    """A choice's first comment: what it is, in one line."""
    for line in path.read_text().splitlines():
        if line.startswith("# @"):
            continue
        return line.lstrip("# ").strip() if line.startswith("#") else ""
    return ""


def compose(verb: str, overrides: Sequence[str], recipes: Path | None = None) -> dict[str, Any]:
    """The config of ``verb``: defaults, recipe or suite, command line.  Everything wrong with it is ``Misuse``."""
    parsed = [_parse(override) for override in overrides]
    groups = [o for o in parsed if _is_group(str(o.key_or_group), recipes)]
    for override in groups:
        _check_choice(override, recipes)
    if verb == "train" and not any(str(o.key_or_group) == "recipe" for o in groups):
        raise Misuse(f"no recipe given; say recipe=NAME{build.nearest('', list(choices('recipe', recipes)))}")

    base = _compose(verb, [str(o.input_line) for o in groups], recipes)
    lines = [str(o.input_line) for o in groups]
    for override in parsed:
        if override not in groups:
            lines.append(_known(override, base))
    config = _compose(verb, lines, recipes)
    try:
        for key in _missing(config):
            if key != "recipe":
                leaves = "the recipe leaves it to you" if verb == "train" else "it has no default"
                raise Misuse(f"{key} is not set: {leaves}; add {key}=VALUE")
        plain = build.plain(OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise Misuse(_first_line(error)) from error
    if verb != "train":
        return plain
    if plain["alarm"]["policy"] == "False":  # YAML reads a bare `off` as false
        plain["alarm"]["policy"] = "off"
    plain["recipe"] = next(str(o.value()) for o in groups if str(o.key_or_group) == "recipe")
    return plain


def computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a training computes: its config but for where it runs and is watched."""
    return {key: value for key, value in config.items() if key not in INCIDENTAL}


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a training computes, on whatever data: the same wherever these lie."""
    path = config["data"].get("path")

    def without(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        return {key: without(value) for key, value in node.items() if not (key == "path" and value == path)}

    return {**computed(config), "data": without(config["data"])}


def digest(identity: Mapping[str, Any]) -> str:
    """64 hex digits of a plain config."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def run_name(config: Mapping[str, Any], data_digest: str) -> str:
    """``<recipe>-<ten digits>``: the same config on the same data resumes its run, another one never meets it."""
    both = hashlib.sha256(f"{digest(computed(config))}-{data_digest}".encode()).hexdigest()
    return str(config["name"] or f"{config['recipe']}-{both[:10]}")


def _parse(override: str) -> Override:
    if "=" not in override:
        raise Misuse(f"{override!r} is not a setting: write KEY=VALUE")
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        key, value = override.split("=", 1)
        try:  # paths, URIs, and settings in a list hold characters that Hydra's grammar keeps for itself
            several = re.fullmatch(r"\[([^\[\]'\"]*)\]", value)
            quoted = f"[{','.join(map(_quoted, several[1].split(',')))}]" if several else _quoted(value)
            return OverridesParser.create().parse_override(f"{key}={quoted}")
        except HydraException as error:
            raise Misuse(f"{override!r} cannot be read: {_first_line(error)}") from error


def _quoted(value: str) -> str:
    return "'" + value.strip().replace("\\", "\\\\").replace("'", "\\'") + "'"


def _is_group(key: str, recipes: Path | None) -> bool:
    return any((folder / key).is_dir() for folder in folders(recipes)) and key not in ("", ".")


def _check_choice(override: Override, recipes: Path | None) -> None:
    group, value = str(override.key_or_group), override.value()
    known = choices(group, recipes)
    if value not in known and not isinstance(value, dict):
        raise Misuse(f"{group}={value} is unknown{build.nearest(str(value), list(known))}")


def _known(override: Override, base: DictConfig) -> str:
    """The override as Hydra wants it, if its key is one the config, or the target it belongs to, knows."""
    key = str(override.key_or_group)
    parent, _, leaf = key.rpartition(".")
    if any(key.startswith(f"{name}.") for name in OPEN):
        return f"++{str(override.input_line).lstrip('+')}"
    node: Any = base
    for part in parent.split(".") if parent else []:
        if not isinstance(node, DictConfig) or part not in node:
            raise Misuse(f"{key}: unknown setting{build.nearest(part, _names(node))}")
        node = node[part]
    there = isinstance(node, DictConfig) and leaf in list(node)  # what a target takes costs importing it
    if not there and leaf not in _names(node):
        every = list(_flat(base))
        near = build.nearest(key, every) if not parent else build.nearest(leaf, _names(node))
        raise Misuse(f"{key}: unknown setting{near}")
    line = str(override.input_line).lstrip("+")
    return f"++{line}"


def _names(node: Any) -> list[str]:
    """The keys a node has or, as a target's settings, may have."""
    if not isinstance(node, DictConfig):
        return []
    names = [str(key) for key in node]
    if "_target_" in node:
        path = str(node["_target_"])
        if path.startswith(build.ALLOWED):
            names += [n for n in build.parameters(build.target({"_target_": path}, "")) if n not in names]
    return names


def _missing(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Settings still ``???``; interpolations are followed by the settings they point to."""
    for key in map(str, node):
        child = node._get_node(key)
        if child._is_missing():  # type: ignore[union-attr]
            yield f"{prefix}{key}"
        elif isinstance(child, DictConfig) and not child._is_interpolation():
            yield from _missing(child, f"{prefix}{key}.")


def _flat(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key in node:
            yield f"{prefix}{key}"
            child = node._get_node(key) if isinstance(node, DictConfig) else node[key]
            if isinstance(child, DictConfig) and not child._is_interpolation() and not child._is_missing():
                yield from _flat(child, f"{prefix}{key}.")


def _compose(verb: str, overrides: list[str], recipes: Path | None) -> DictConfig:
    search = [str(folder) for folder in folders(recipes)[:-1]]
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return hydra_compose(verb, overrides=[*overrides, f"hydra.searchpath={search}"], return_hydra_config=False)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error.__context__ or error  # Hydra hides some of them
        key = getattr(cause, "full_key", None)
        raise Misuse(f"{key}: {_first_line(cause)}" if key else _first_line(cause)) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    line = re.sub(r"^\w+ raised while resolving interpolation: ", "", line)  # what the resolver said is enough
    return re.sub(r"\s+", " ", line)

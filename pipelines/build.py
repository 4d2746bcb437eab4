"""Config node to object.  ``_target_`` is the registry; this is the only place that follows it."""

import difflib
import inspect
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_object
from omegaconf import OmegaConf

from pipelines.errors import Misuse, first_line

ALLOWED = ("trainers.", "torch.optim.")
Trust = bool | Sequence[str]
"""Whose code may run besides: true for anybody's, or packages by name."""
_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d*)?[eE][+-]?\d+")
logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # get_object logs what it raises


def number(text: Any) -> Any:
    """``"8/255"`` and ``"1e-3"`` as floats; everything else as it is."""
    if isinstance(text, str):
        if (match := _FRACTION.fullmatch(text)) and float(match[2]):
            return float(match[1]) / float(match[2])
        if _SCIENTIFIC.fullmatch(text):
            return float(text)
    return text


def _times(*factors: Any) -> float:
    product = 1.0
    for factor in factors:
        product *= float(number(factor))
    return product


def _required(key: str, what: str) -> None:
    """For a recipe that leaves ``key`` to the user where the default is null: merging ``???`` would keep the null."""
    raise Misuse(f"{key} is not set: give {what}; add {key}=VALUE")


OmegaConf.register_new_resolver("times", _times, replace=True)
OmegaConf.register_new_resolver("required", _required, replace=True)


def plain(node: Any) -> Any:
    """A node of plain dicts, lists and numbers, fractions resolved."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [plain(value) for value in node]
    return number(node)


def target(node: Mapping[str, Any], where: str, trust: Trust = ()) -> Any:
    """What the node's ``_target_`` names.  ``Misuse`` for a target outside Holdfast that was not trusted."""
    path = str(node["_target_"])
    trusted = trust if isinstance(trust, bool) else path.startswith(tuple(f"{package}." for package in trust))
    if not trusted and not path.startswith(ALLOWED):
        package = path.split(".")[0]
        raise Misuse(
            f"{where}._target_={path} is not Holdfast's own: building it runs that code. "
            f"If you trust it, add trust=[{package}]; the run records it"
        )
    try:
        made = get_object(path)
    except Exception as error:
        raise Misuse(
            f"{where}._target_={path} cannot be imported ({first_line(error.__cause__ or error)}); correct the name, "
            "install its package, or run in the folder that holds it"
        ) from error
    # A module of ours also holds what it imported: `trainers.state_file.os.system` begins with an allowed prefix.
    ours = (inspect.isclass(made) or inspect.isfunction(made)) and f"{made.__module__}.".startswith(ALLOWED)
    if not trusted and not ours:
        raise Misuse(f"{where}._target_={path} is no class or function of Holdfast's own; name one that is")
    return made


def parameters(made: Any) -> list[str]:
    """The settings that a target takes."""
    return [
        name
        for name, parameter in inspect.signature(made).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and not name.startswith("_")
    ]


def nearest(name: str, names: Sequence[str]) -> str:
    """``"; nearest: a, b"``, or all of a short list when nothing is near."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    if close:
        return f"; nearest: {', '.join(close)}"
    return f"; there are: {', '.join(sorted(names))}" if len(names) <= 24 else ""


def check(node: Any, where: str, trust: Trust = ()) -> None:
    """Refuse, anywhere below ``node``, targets that are not allowed and settings they do not take."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            made = target(node, where, trust)
            known = parameters(made)
            for key in node:
                if key not in known and not key.startswith("_"):
                    raise Misuse(f"{where}.{key} is not a setting of {node['_target_']}{nearest(key, known)}")
        for key, value in node.items():
            check(value, f"{where}.{key}", trust)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check(value, f"{where}[{i}]", trust)


def build(node: Mapping[str, Any], where: str, trust: Trust = (), **extra: Any) -> Any:
    """The object a node describes, its parts first; ``extra`` adds what a config cannot hold.

    Not ``hydra.utils.instantiate``: that turns dataclasses handed to it into dicts.  Errors: ``Misuse``.
    """
    check(node, where, trust)
    return _built(node, where, trust, extra)


def _built(node: Any, where: str, trust: Trust, extra: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_built(value, f"{where}[{i}]", trust, {}) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    parts = {key: _built(value, f"{where}.{key}", trust, {}) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return parts
    try:
        return target(node, where, trust)(**{**parts, **extra})
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Misuse(_placed(str(error), where)) from error


def _placed(message: str, where: str) -> str:
    """A part names its setting by the last word of where it stands: ``attack.steps`` in ``objective.attack``."""
    last = where.rpartition(".")[2]
    return where + message[len(last) :] if message.startswith(f"{last}.") else message

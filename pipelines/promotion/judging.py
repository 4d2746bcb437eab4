"""How a policy wants versions judged: the evaluation that both the candidate and the champion go through."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipelines import compose, parts
from pipelines.errors import Misuse, first_line
from pipelines.evaluation.prepare import FIRST, located
from trainers.attacks.cascade import autoattack
from trainers.data.held_out import HeldOut

_OURS = ("model", "name", "storage", "tracking", "json", "report", "journal", "workers", "device", "trust")
"""Settings of an evaluation that a policy has no say in."""


def judged(config: Mapping[str, Any], recipes: Path | None) -> dict[str, Any]:
    """The config of the evaluation.  Errors: ``Misuse``, also for one that no gate may rest on."""
    asked = [str(override) for override in config["policy"]["evaluation"]]
    for override in asked:
        key = override.partition("=")[0].lstrip("+")
        if key.partition(".")[0] in _OURS:
            raise Misuse(f"policy.evaluation: {override} is not the policy's to say; remove it")
        if key.startswith(("attack.", "beyond.")) and key != "attack.version":
            raise Misuse(f"policy.evaluation: {override} would be another attack than the one people know; remove it")
    ours = [f"{key}={config[key]}" for key in ("batch_size", "compile", "workers", "device")]
    ours += [f"data.path={config['path']}"] if config["path"] else []
    try:
        found = compose.compose("evaluate", [*asked, *ours, "report.pictures=0"], recipes)
    except Misuse as error:
        hint = "; say path=, where the images are on this machine" if "data.path is not set" in str(error) else ""
        raise Misuse(f"policy.evaluation: {str(error).partition(': it has')[0] if hint else error}{hint}") from error
    if not found["threats"]:
        raise Misuse(
            "policy.evaluation names no threat, so each version would be judged at its own; add threats.Linf=8/255"
        )
    if found["attack"]["_target_"] != f"{autoattack.__module__}.{autoattack.__name__}":
        raise Misuse("policy.evaluation: a gate demands AutoAttack; leave attack= out, or say attack=autoattack")
    if not found["beyond"] or not found["doubts"]:
        raise Misuse(
            "policy.evaluation: a gate that knows only AutoAttack can be gamed, so it demands the attack beyond it "
            "and the doubts; leave beyond= and doubts= out"
        )
    return {**found, "storage": config["storage"], "tracking": config["tracking"], "json": None}


def images(config: dict[str, Any]) -> HeldOut:
    """Those that decide.  Errors: ``Misuse`` for what cannot be read."""
    try:
        return parts.exam(located(config))
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Misuse(f"policy.evaluation: {first_line(error)}") from error


def pixels(exam: HeldOut) -> torch.Tensor:
    """The first few, to try an artefact on."""
    try:
        return exam.batch(torch.arange(min(FIRST, len(exam)))).x
    except (ValueError, FileNotFoundError) as error:
        raise Misuse(f"policy.evaluation: {first_line(error)}") from error

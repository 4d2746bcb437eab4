"""What is to be evaluated, everything about it checked before any work."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines import compose, outcome, parts, places, sources, validate
from pipelines.build import build, parameters, target
from pipelines.errors import Misuse
from pipelines.evaluation import robustbench
from pipelines.evaluation.findings import Chain
from pipelines.evaluation.threats import threats
from pipelines.sources import Candidate
from trainers.attacks.cascade import Cascade, autoattack
from trainers.data.held_out import HeldOut
from trainers.threat import Threat

FIRST = 16
"""Images that are read before anything is begun."""


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, everything about it checked.  ``identity``: what its verdicts depend on; ``attack``: what
    people call it."""

    config: Mapping[str, Any]
    candidate: Candidate
    beside: Candidate | None
    exam: HeldOut
    chains: list[Chain]
    identity: dict[str, Any]
    name: str
    attack: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided for the user."""
        names, classes = self.chains[0].names[: self.chains[0].length], len(self.exam.classes)
        if classes > 3 or len(names) == 1:
            return self.candidate.notes
        few = f"with {classes} classes some losses are not defined: the attack is {', '.join(names)}"
        return (*self.candidate.notes, few)

    def answers(self) -> list[list[float]]:
        """The model's logits for the first images; none of one that draws random numbers."""
        x = self.exam.batch(torch.arange(min(FIRST, len(self.exam)))).x
        with torch.no_grad():
            once, again = (self.candidate.model(x).float() for _ in range(2))
        answers: list[list[float]] = once.nan_to_num().tolist()
        return answers if torch.equal(once, again) else []

    @property
    def place(self) -> str:
        return places.at(self.config["storage"], self.name)


def prepare(config: dict[str, Any]) -> Evaluation:
    """Errors: ``Misuse`` for whatever cannot be evaluated."""
    _numbers(config)
    robustbench.check(config["submission"])
    places.check(config)
    try:
        exam = parts.exam(config)
        exam.batch(torch.arange(min(FIRST, len(exam))))
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Misuse(str(error)) from error
    classes, size, trust = len(exam.classes), exam.input_size, config["trust"]
    uri, shown = config["tracking"]["uri"], config["report"]["beside"]
    candidate = sources.load(config["model"], classes, size, uri, trust)
    beside = None
    if shown["source"] or shown["name"]:
        beside = sources.load(shown, classes, size, uri, trust, "report.beside")
    judged = threats(config["threats"], candidate.threat, size)
    chains = [_chain(config, threat, classes) for threat in judged]
    identity = {
        "model": candidate.digest,
        "data": exam.digest,
        "examples": exam.chosen,
        "threats": [f"{threat.norm} {threat.eps!r}" for threat in judged],
        **{key: config[key] for key in ("attack", "beyond", "seed", "reference")},
        **({"batch_size": config["batch_size"]} if config["reference"] else {}),
    }
    slug = re.sub(r"[^A-Za-z0-9]+", "-", candidate.title).strip("-")[:40] or "model"
    name = config["name"] or f"{slug}-{compose.digest(identity)[:10]}"
    return Evaluation(config, candidate, beside, exam, chains, identity, name, _called(config["attack"]))


def _called(node: Mapping[str, Any]) -> str:
    """``AutoAttack standard``, ``PGD-50``."""
    if node["_target_"] == f"{autoattack.__module__}.{autoattack.__name__}":
        return f"AutoAttack {node.get('version', 'standard')}"
    return outcome.attack(node)


def _chain(config: Mapping[str, Any], threat: Threat, classes: int) -> Chain:
    attack = _members(config, "attack", threat, classes)
    beyond = _members(config, "beyond", threat, classes) if config["beyond"] else []
    try:
        return Chain(threat, Cascade(attack), Cascade([*attack, *beyond]))
    except ValueError as error:
        raise Misuse(str(error)) from error


def _members(config: Mapping[str, Any], where: str, threat: Threat, classes: int) -> list[Any]:
    """The attacks of a node, those left out that need more classes than there are."""
    node, trust = config[where], config["trust"]
    takes = parameters(target(node, where, trust))
    extra = {"classes": classes} if "classes" in takes else {}
    made = build(node, where, trust, threat=threat, **extra)
    members = made.members if isinstance(made, Cascade) else [made]
    return [member for member in members if classes >= getattr(member, "classes", 2)]


def _numbers(config: Mapping[str, Any]) -> None:
    for name, least in (("batch_size", 1), ("workers", 1), ("examples", 1)):
        if config[name] is not None and config[name] < least:
            raise Misuse(f"{name}={config[name]} must be at least {least}")
    for name, value in (
        ("report.pictures", config["report"]["pictures"]),
        ("journal.seconds", config["journal"]["seconds"]),
    ):
        if value < 0:
            raise Misuse(f"{name}={value:g} must not be negative")
    if config["name"] is not None:
        validate.name(config["name"])
    for name in ("steps", "halvings"):
        if config["curve"][name] < 1:
            raise Misuse(f"curve.{name}={config['curve'][name]} must be at least 1")
    if config["device"] not in ("auto", "cpu", "cuda"):
        raise Misuse(f"device={config['device']} is unknown; choose one of auto, cpu, cuda")
    trust = config["trust"]
    if not isinstance(trust, bool) and not (isinstance(trust, list) and all(isinstance(t, str) for t in trust)):
        raise Misuse(f"trust={trust!r} must be true, or a list of packages: trust=[mymodels]")


def located(config: dict[str, Any]) -> dict[str, Any]:
    """Every local path absolute, as workers run in folders of their own."""
    config = places.located(config)
    for node in (config["model"], config["report"]["beside"]):
        source = node["source"]
        if source and "://" not in source and Path(source).expanduser().exists():
            node["source"] = str(Path(source).expanduser().absolute())
    return config

"""``holdfast promote``: the gate attacks what is registered, says why, and moves the champion if it passed."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pipelines import compose, outcome, parts, storage
from pipelines.errors import Failure, Lost, Misuse, Refused, first_line
from pipelines.evaluate import evaluate
from pipelines.evaluation.prepare import FIRST
from pipelines.evaluation.prepare import located as placed
from pipelines.promotion import artefact, gate, move, shown
from pipelines.promotion.artefact import Artefact
from pipelines.promotion.evidence import Evidence, evidence
from pipelines.promotion.gate import Decision
from pipelines.promotion.move import Plan
from pipelines.promotion.policy import Policy, policy
from pipelines.tracking import audit, registry, server, versions
from pipelines.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS
from trainers.attacks.cascade import autoattack

_OURS = ("model", "name", "storage", "tracking", "json", "report", "journal", "workers", "device", "trust", "beside")
"""Settings of an evaluation that a policy has no say in."""


@dataclass(frozen=True)
class Request:
    """Version ``number`` of ``name`` wants to be champion of ``target``, in place of ``champion``."""

    name: str
    number: int
    target: str
    champion: int | None

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


def promote(config: dict[str, Any], console: Console, recipes: Path | None = None, debug: bool = False) -> None:
    """One look, or one every ``config["watch"]`` seconds: is there a challenger, and may it be champion?

    Errors: ``Refused`` if not, with every reason on the terminal and in the audit record; ``Misuse`` for what cannot
    be judged; ``Failure`` if the registry does not take the move, which the same command finishes or undoes.
    """
    rules = policy(config["policy"])
    judged = _judged(config, recipes)
    registry.check_name(config["name"])
    registry.check_name(config["to"] or config["name"])
    _places(config)
    server.check_there(config["tracking"]["uri"])
    with server.bounded():
        if config["watch"] is None:
            _look(config, rules, judged, console, debug)
            return
        refused: set[Request] = set()
        while True:
            _watched(config, rules, judged, console, debug, refused)
            time.sleep(config["watch"])


def _watched(
    config: Mapping[str, Any],
    rules: Policy,
    judged: dict[str, Any],
    console: Console,
    debug: bool,
    refused: set[Request],
) -> None:
    """A look that outlives what is wrong with one challenger, and the registry's absence."""
    asked = None
    try:
        asked = _asked(config, console)
        if asked and asked not in refused:
            _decide(asked, config, rules, judged, console, debug)
    except (Refused, Misuse) as error:
        refused |= {asked} if asked else set()
        console.print(f"holdfast: {error}", soft_wrap=True, markup=False)
    except (Failure, Lost) as error:
        console.print(f"holdfast: {error}", soft_wrap=True, markup=False)


def _look(config: Mapping[str, Any], rules: Policy, judged: dict[str, Any], console: Console, debug: bool) -> None:
    asked = _asked(config, console)
    if asked is None:
        return
    _decide(asked, config, rules, judged, console, debug)


def _asked(config: Mapping[str, Any], console: Console) -> Request | None:
    """Who wants to be champion; None if nobody does, or it is already."""
    uri, name, target = config["tracking"]["uri"], config["name"], config["to"] or config["name"]
    there = versions.aliases(uri, name)
    theirs = versions.aliases(uri, target) if versions.exists(uri, target) else {}
    if said := move.by_hand(uri, target) if theirs else None:
        console.print(f"[yellow]warning[/] {said}", soft_wrap=True)
    number = config["version"] or there.get(CHALLENGER)
    if number is None:
        console.print(f"{name} has no challenger: set that alias, or give version=NUMBER", soft_wrap=True)
        return None
    versions.find(uri, name, number)
    champion = theirs.get(CHAMPION)
    if champion and f"models:/{name}/{number}" in (f"models:/{target}/{champion}", _copied(uri, target, champion)):
        console.print(f"{name}/{number} is the champion of {target} already", soft_wrap=True)
        return None
    return Request(name, number, target, champion)


def _copied(uri: str, name: str, number: int) -> str:
    return versions.find(uri, name, number).tags.get("holdfast.copied_from", "")


def _decide(
    asked: Request, config: Mapping[str, Any], rules: Policy, judged: dict[str, Any], console: Console, debug: bool
) -> None:
    uri = config["tracking"]["uri"]
    x = _pixels(judged)
    inspected = artefact.inspect(uri, asked.name, asked.number, x)
    weighed = tuple(gate.weighed(inspected))
    if not all(clause.passed for clause in weighed):  # nothing is attacked for hours that is refused all the same
        champion = f"{asked.target}/{asked.champion}" if asked.champion else None
        _refuse(asked, config, Decision(str(asked), champion, weighed), {}, console)
    candidate = _evidence(config, judged, asked.name, asked.number, inspected, console, debug)
    champion_evidence = None
    if asked.champion is not None:
        theirs = artefact.inspect(uri, asked.target, asked.champion, x)
        champion_evidence = _evidence(config, judged, asked.target, asked.champion, theirs, console, debug)
    decision = gate.decide(candidate, champion_evidence, rules)
    proof = {
        "policy": compose.digest(config["policy"]),
        "evidence": candidate.digest,
        "champion_evidence": champion_evidence.digest if champion_evidence else None,
        "artefact": inspected.digest,
        "data": candidate.data,
    }
    if not decision.passed:
        _refuse(asked, config, decision, proof, console)
    if not artefact.unchanged(uri, asked.name, asked.number, inspected.digest):
        raise Refused(f"the artefact of {asked} was changed while it was judged; nothing was moved")
    record = _move(asked, config, decision, proof)
    _leave(asked, config, decision, proof, record, console)
    was = f", in place of version {asked.champion}" if asked.champion else ""
    number = record.facts["after"]
    console.print(f"promoted: models:/{asked.target}@{CHAMPION} is version {number} now{was}", soft_wrap=True)
    console.print(f"record {record.number} of {asked.target}{audit.SUFFIX}; undo: {_undo(asked)}", soft_wrap=True)


def _undo(asked: Request) -> str:
    return f"holdfast rollback name={asked.target} reason=..." if asked.champion else "take the alias away by hand"


def _move(asked: Request, config: Mapping[str, Any], decision: Decision, proof: Mapping[str, Any]) -> audit.Record:
    uri, number = config["tracking"]["uri"], asked.number
    tags = _tags(decision, proof)
    versions.tag(uri, asked.name, number, tags)
    if asked.target != asked.name:
        number = versions.copy(uri, versions.find(uri, asked.name, asked.number), asked.target, tags)
    earlier = versions.aliases(uri, asked.target).get(PREVIOUS)
    plan = Plan(asked.target, "promote", asked.champion, number, earlier, asked.champion)
    facts = {**proof, "candidate": str(asked), "passed": True}
    record = move.move(uri, plan, facts, shown.markdown(decision), tags)
    if asked.target != asked.name and versions.aliases(uri, asked.name).get(CHALLENGER) == asked.number:
        versions.point(uri, asked.name, CHALLENGER, None)
    return record


def _refuse(
    asked: Request, config: Mapping[str, Any], decision: Decision, proof: Mapping[str, Any], console: Console
) -> None:
    """Nothing moves; why is written down, once."""
    uri = config["tracking"]["uri"]
    facts = {**proof, "candidate": str(asked), "before": asked.champion, "passed": False, "failed": decision.failed}
    facts["decision"] = compose.digest({"clauses": shown.plain(decision)["clauses"]})
    known = [
        r
        for r in audit.records(uri, asked.target)
        if r.state == audit.REFUSED
        and r.facts.get("decision") == facts["decision"]
        and r.facts["candidate"] == str(asked)
    ]
    said = shown.markdown(decision)
    record = (
        known[-1]
        if known
        else audit.append(uri, asked.target, f"models:/{asked}", "promote", audit.REFUSED, facts, said)
    )
    versions.tag(uri, asked.name, asked.number, _tags(decision, proof))
    _leave(asked, config, decision, proof, record, console)
    raise Refused(f"{asked} is not promoted: {', '.join(decision.failed)}")


def _tags(decision: Decision, proof: Mapping[str, Any]) -> dict[str, str]:
    said = {f"gate.{key}": str(value) for key, value in proof.items() if value}
    return {**said, "gate.passed": str(decision.passed).lower(), "gate.failed": ", ".join(decision.failed) or "none"}


def _leave(
    asked: Request,
    config: Mapping[str, Any],
    decision: Decision,
    proof: Mapping[str, Any],
    record: audit.Record | None,
    console: Console,
) -> None:
    shown.show(decision, console)
    if config["markdown"]:
        storage.write(str(Path(config["markdown"]).absolute()), shown.markdown(decision).encode())
    said = {"target": asked.target, **proof, "record": record.number if record else None}
    outcome.leave({**shown.plain(decision), **said}, config["json"])


def _evidence(
    config: Mapping[str, Any],
    judged: dict[str, Any],
    name: str,
    number: int,
    inspected: Artefact,
    console: Console,
    debug: bool,
) -> Evidence:
    found = evaluate(
        {**judged, "model": {**judged["model"], "source": f"models:/{name}/{number}"}}, console, debug=debug
    )
    return evidence(f"{name}/{number}", inspected, found)


def _pixels(judged: dict[str, Any]) -> torch.Tensor:
    try:
        exam = parts.exam(placed(judged))
        return exam.batch(torch.arange(min(FIRST, len(exam)))).x
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Misuse(f"policy.evaluation: {first_line(error)}") from error


def _judged(config: Mapping[str, Any], recipes: Path | None) -> dict[str, Any]:
    """The config of the evaluation that the policy asks for.  Errors: ``Misuse``, also for one no gate may rest on."""
    asked = list(config["policy"]["evaluation"])
    for override in asked:
        key = str(override).partition("=")[0].lstrip("+")
        if key.partition(".")[0] in _OURS:
            raise Misuse(f"policy.evaluation: {override} is not the policy's to say; remove it")
        if key.startswith(("attack.", "beyond.")) and key != "attack.version":
            raise Misuse(f"policy.evaluation: {override} would be another attack than the one people know; remove it")
    if not any(str(override).partition("=")[0].partition(".")[0] in ("threats", "suite") for override in asked):
        raise Misuse(
            "policy.evaluation names no threat, so each version would be judged at its own; add threats.Linf=8/255"
        )
    ours = [f"{key}={config[key]}" for key in ("batch_size", "compile", "workers", "device")]
    ours += [f"data.path={config['path']}"] if config["path"] else []
    try:
        judged = compose.compose("evaluate", [*asked, *ours, "report.pictures=0"], recipes)
    except Misuse as error:
        raise Misuse(f"policy.evaluation: {error}") from error
    if judged["attack"]["_target_"] != f"{autoattack.__module__}.{autoattack.__name__}":
        raise Misuse("policy.evaluation: a gate demands AutoAttack; leave attack= out, or say attack=autoattack")
    if not judged["beyond"] or not judged["doubts"]:
        raise Misuse(
            "policy.evaluation: a gate that knows only AutoAttack can be gamed, so it demands the attack beyond it "
            "and the doubts; leave beyond= and doubts= out"
        )
    return {**judged, "storage": config["storage"], "tracking": config["tracking"], "json": None}


def _places(config: Mapping[str, Any]) -> None:
    for name in ("json", "markdown"):
        if config[name] and not os.access(Path(config[name]).absolute().parent, os.W_OK):
            raise Misuse(f"{name}={config[name]}: its folder is not there or not writable; make it first")
    if config["watch"] is not None and config["watch"] <= 0:
        raise Misuse(f"watch={config['watch']:g} must be above 0: the seconds from look to look")

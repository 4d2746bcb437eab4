"""``holdfast evaluate``: a model, a threat, an attack; a number with its interval, its doubts and its report."""

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pipelines import (
    appendix,
    cluster,
    compose,
    findings,
    outcome,
    parts,
    places,
    records,
    report,
    robustbench,
    sources,
    storage,
    validate,
)
from pipelines.build import build, parameters, target
from pipelines.crew import Actors, Crew, Here
from pipelines.errors import Misuse, Stopped
from pipelines.evaluator import Order
from pipelines.findings import Chain
from pipelines.journal import Journal
from pipelines.redact import redact, redact_text
from pipelines.sources import Candidate
from pipelines.threats import threats, title
from pipelines.tracking import evaluations, git, runs
from trainers.attacks.cascade import Cascade
from trainers.data.held_out import HeldOut
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.ledger import Ledger
from trainers.evaluation.piece import CLEAN
from trainers.threat import Threat

FILE, PAGE, CARD = "evaluation.json", "report.html", "card.md"
FIRST = 16
"""Images that are read before anything is begun."""


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, everything about it checked.  ``identity``: what its numbers depend on."""

    config: Mapping[str, Any]
    candidate: Candidate
    beside: Candidate | None
    exam: HeldOut
    chains: list[Chain]
    identity: dict[str, Any]
    name: str

    @property
    def place(self) -> str:
        return places.at(self.config["storage"], self.name)


def evaluate(config: dict[str, Any], console: Console, command: str = "", debug: bool = False) -> dict[str, Any]:
    """Refuse what cannot be judged, attack, look for doubts, report; the same command continues its journal.

    Errors: ``Misuse`` before any work; ``Failure`` and ``Lost`` with the journal kept.
    """
    config = _located(config)
    evaluation = prepare(config)
    digest = compose.digest(evaluation.identity)
    places.owner(config["storage"], evaluation.name, digest, evaluation.identity)
    runs.check(config["tracking"]["uri"])
    for note in evaluation.candidate.notes:
        console.print(f"note: {note}", soft_wrap=True)
    ledger = Ledger(evaluation.exam.ids, [chain.names for chain in evaluation.chains], config["reference"])
    journal = Journal(evaluation.place)
    pieces, middles = journal.read(ledger)
    places.claim(config["storage"], evaluation.name, digest, evaluation.identity)
    where = redact_text(evaluation.place)
    console.print(
        f"{evaluation.name}: {len(evaluation.exam):,} images of {evaluation.exam.of:,}, in {where}", soft_wrap=True
    )
    if pieces or middles:
        console.print(f"note: continuing from {pieces} finished items and {len(middles)} begun ones", soft_wrap=True)
    with _crew(evaluation, journal, console, debug) as crew:
        _work(evaluation, ledger, journal, middles, crew, console)
        extra = appendix.appendix(evaluation, ledger, journal, crew)
        found = _found(evaluation, ledger, extra, crew, command)
    _leave(evaluation, ledger, found, extra, journal, console)
    return found


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
        "threats": [title(threat) for threat in judged],
        **{key: config[key] for key in ("attack", "beyond", "seed", "reference")},
        **({"batch_size": config["batch_size"]} if config["reference"] else {}),
        **{key: config[key] for key in ("curve", "doubts") if config[key]},
        "pictures": [config["report"]["pictures"], beside.digest if beside else None],
    }
    slug = re.sub(r"[^A-Za-z0-9]+", "-", candidate.title).strip("-")[:40] or "model"
    name = config["name"] or f"{slug}-{compose.digest(identity)[:10]}"
    return Evaluation(config, candidate, beside, exam, chains, identity, name)


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


def _located(config: dict[str, Any]) -> dict[str, Any]:
    """Every local path absolute, as workers run in folders of their own."""
    config = places.located(config)
    for node in (config["model"], config["report"]["beside"]):
        source = node["source"]
        if source and "://" not in source and Path(source).expanduser().exists():
            node["source"] = str(Path(source).expanduser().absolute())
    return config


@contextmanager
def _crew(evaluation: Evaluation, journal: Journal, console: Console, debug: bool) -> Iterator[Crew]:
    """This process for one worker, unless a cluster is named; Ray's actors otherwise."""
    config = evaluation.config
    alone = config["workers"] == 1 and not os.environ.get("RAY_ADDRESS")
    use_gpu = config["device"] != "cpu" and torch.cuda.is_available()
    resources: dict[str, float] = {}
    if not alone:
        cluster.connect(debug)
        use_gpu, resources = cluster.placement(config)
        for doubt in places.doubts(config, cluster.size()):
            console.print(f"[yellow]warning[/] {doubt}", soft_wrap=True)
    elif config["device"] == "cuda" and not use_gpu:
        raise Misuse("device=cuda: this machine has no GPU; use device=cpu, or point RAY_ADDRESS at a cluster with one")
    effort = Effort(config["seed"], config["batch_size"], config["reference"], every=5 if use_gpu else 1)
    order = Order(
        model=evaluation.candidate.model,
        exam=evaluation.exam,
        chains=[chain.whole for chain in evaluation.chains],
        effort=effort,
        compile=config["compile"],
        threads=None if alone else max(1, int(resources["CPU"])),
        middles=journal.middles,
        seconds=config["journal"]["seconds"],
    )
    crew: Crew
    if alone:
        crew = Here(order, "cuda" if use_gpu else "cpu")
    else:
        crew = Actors(order, config["workers"], use_gpu, resources)
    try:
        yield crew
    finally:
        with suppress(Exception):
            crew.close()


def _work(
    evaluation: Evaluation,
    ledger: Ledger,
    journal: Journal,
    middles: list[Any],
    crew: Crew,
    console: Console,
) -> None:
    """Until every example is through every attack, or fooled."""
    began = time.monotonic()
    effort = Effort(batch_size=evaluation.config["batch_size"], reference=evaluation.config["reference"])
    told = {(number, name) for number, name, _ in ledger.ended()}

    def take() -> Any:
        return middles.pop() if middles else ledger.take(effort.item_size, crew.workers)

    with console.status(evaluation.name) as status:
        try:
            for item, piece in crew.work(take, ledger.give_back):
                ledger.add(piece)
                journal.add(item, piece)
                for line in _news(evaluation, ledger, told):
                    console.print(f"{line}  ({time.monotonic() - began:.0f} s)", soft_wrap=True)
                status.update(_now(evaluation, ledger))
        except ValueError as error:
            raise Misuse(str(error)) from error
        except KeyboardInterrupt as stop:
            raise Stopped("stopped") from stop


def _news(evaluation: Evaluation, ledger: Ledger, told: set[tuple[int, str]]) -> Iterator[str]:
    """A line for each attack that has ended on all examples."""
    n = len(ledger.ids)
    for number, name, left in ledger.ended():
        if (number, name) not in told:
            told.add((number, name))
            where = "" if name == CLEAN else f"{title(evaluation.chains[number].threat)}  "
            yield f"{where}{name}: {left} of {n} left"


def _now(evaluation: Evaluation, ledger: Ledger) -> str:
    waiting = next(((number, name, there) for number, name, there in ledger.unfinished()), None)
    if waiting is None:
        return evaluation.name
    number, name, there = waiting
    where = "" if name == CLEAN else f"{title(evaluation.chains[number].threat)} "
    return f"{evaluation.name}: {where}{name}, {there} examples to go"


def _found(evaluation: Evaluation, ledger: Ledger, extra: Any, crew: Crew, command: str) -> dict[str, Any]:
    config, exam = evaluation.config, evaluation.exam
    node = config["attack"]
    kind = str(node["_target_"]).split(".")[-1]
    called = f"AutoAttack {node['version']}" if kind == "autoattack" else outcome.attack(node)
    return {
        "name": evaluation.name,
        "model": findings.about_model(evaluation.candidate),
        "data": findings.about_data(config, exam, ledger),
        "clean": findings.share(ledger.right),
        "threats": findings.threats(ledger, evaluation.chains, exam),
        "curves": extra.curves,
        "doubts": extra.doubts,
        "checked": extra.checked,
        "attack": {
            "name": called,
            "version": node.get("version", ""),
            "mode": "reference" if config["reference"] else "fast",
            "seed": config["seed"],
            "batch_size": config["batch_size"],
        },
        "cost": findings.cost(ledger, crew.workers, crew.device),
        **findings.machine(),
        "git": (state := git.state()) and state._asdict(),
        "command": redact_text(command),
        "suite": config["suite"],
        "beside": {"title": evaluation.beside.title, "source": evaluation.beside.source} if evaluation.beside else None,
        "tracking_uri": redact_text(config["tracking"]["uri"]),
        "storage": redact_text(evaluation.place),
    }


def _leave(
    evaluation: Evaluation, ledger: Ledger, found: dict[str, Any], extra: Any, journal: Journal, console: Console
) -> None:
    """Report, card, JSON and records: in storage, in the model's run, and at its version."""
    config, candidate = evaluation.config, evaluation.candidate
    uri = config["tracking"]["uri"]
    run_id = candidate.run_id or _run(evaluation)
    found["model"]["run_id"] = run_id
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        here = Path(folder)
        with records.Writer(here / records.NAME, records.about(found)) as writer:
            writer.write(findings.records(ledger, evaluation.chains, evaluation.exam))
        (here / PAGE).write_text(report.page(found, extra.pictures))
        (here / CARD).write_text(report.card(found))
        (here / FILE).write_text(json.dumps(found, indent=2) + "\n")
        for note in _submission(config, found, here):
            console.print(f"note: {note}", soft_wrap=True)
        storage.upload(here, evaluation.place)
        journal.once("logged", lambda: evaluations.log(
            uri, run_id, evaluation.name, here, _metrics(found), candidate.version, _tags(found)
        ))  # fmt: skip
    if candidate.run_id is None:
        runs.close_run(uri, run_id)
    outcome.leave(found, config["json"])
    for line in report.lines(found):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"report: {redact_text(evaluation.place)}/{PAGE}", soft_wrap=True)


def _submission(config: Mapping[str, Any], found: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """RobustBench's ``model_info``, where its suite was asked for; what is to be filled in by hand."""
    if not config["suite"] or not config["suite"]["published"]:
        return ()
    try:
        fields, notes = robustbench.model_info(found, **config["submission"])
    except Misuse as error:
        return (f"no {robustbench.NAME} is written: {error}",)
    robustbench.write(fields, folder)
    return tuple(notes)


def _run(evaluation: Evaluation) -> str:
    """A run of its own, for a model that comes from no run."""
    config = evaluation.config
    return runs.open_run(
        config["tracking"]["uri"],
        config["tracking"]["experiment"],
        key=f"{evaluation.name}-{compose.digest(evaluation.identity)}",
        name=evaluation.name,
        params=redact({key: config[key] for key in config if key not in ("json", "tracking", "storage")}),
        tags={"evaluation.of": evaluation.candidate.source, "model_digest": evaluation.candidate.digest},
    )


def _metrics(found: Mapping[str, Any]) -> dict[str, float]:
    every = {"evaluation/clean_accuracy": found["clean"]["accuracy"], "evaluation/doubts": len(found["doubts"])}
    for threat in found["threats"]:
        where = f"evaluation/{threat['norm']}_{threat['eps']:.4g}"
        every[f"{where}/robust_accuracy"] = threat["robust"]["accuracy"]
        if threat["beyond"]:
            every[f"{where}/robust_accuracy_beyond"] = threat["beyond"]["robust"]["accuracy"]
    return every


def _tags(found: Mapping[str, Any]) -> dict[str, str]:
    doubts = ", ".join(doubt["name"] for doubt in found["doubts"]) or "none"
    numbers = {name.replace("/", "."): f"{value:.6g}" for name, value in _metrics(found).items()}
    return {**numbers, "evaluation.n": str(found["data"]["n"]), "evaluation.doubts": doubts}

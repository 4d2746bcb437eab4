"""What an evaluation leaves: one plain dict, its report, card and records; in storage, in MLflow, on the terminal."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import compose, outcome, report, storage
from pipelines.errors import Misuse
from pipelines.evaluation import findings, records, robustbench
from pipelines.evaluation.appendix import Appendix
from pipelines.evaluation.crew import Crew
from pipelines.evaluation.journal import Journal
from pipelines.evaluation.prepare import Evaluation
from pipelines.redact import redact, redact_text
from pipelines.tracking import evaluations, git, runs
from trainers.evaluation.ledger import Ledger

FILE, PAGE, CARD = "evaluation.json", "report.html", "card.md"


def found(evaluation: Evaluation, ledger: Ledger, extra: Appendix, crew: Crew, command: str) -> dict[str, Any]:
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


def leave(
    evaluation: Evaluation, ledger: Ledger, found: dict[str, Any], extra: Appendix, journal: Journal, console: Console
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

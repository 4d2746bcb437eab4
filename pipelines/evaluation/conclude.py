"""What an evaluation leaves: one plain dict, its report, card and records; in storage, in MLflow, on the terminal."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import compose, outcome, report, storage
from pipelines.errors import Failure, Misuse
from pipelines.evaluation import findings, records, robustbench
from pipelines.evaluation.appendix import Appendix
from pipelines.evaluation.crew import Crew
from pipelines.evaluation.journal import Journal
from pipelines.evaluation.prepare import Evaluation
from pipelines.redact import redact, redact_text
from pipelines.tracking import evaluations, git, runs
from trainers.evaluation.ledger import Ledger

FILE, PAGE, CARD = "evaluation.json", "report.html", "card.md"


def found(
    evaluation: Evaluation, ledger: Ledger, extra: Appendix, crew: Crew, run_id: str, command: str
) -> dict[str, Any]:
    config, exam = evaluation.config, evaluation.exam
    return {
        "name": evaluation.name,
        "model": findings.about_model(evaluation.candidate) | {"run_id": run_id},
        "data": findings.about_data(config, exam, ledger),
        "clean": findings.share(ledger.right),
        "threats": findings.threats(ledger, evaluation.chains, exam),
        "curves": extra.curves,
        "doubts": extra.doubts,
        "checked": extra.checked,
        "attack": {
            "name": evaluation.attack,
            "version": config["attack"].get("version", "standard") if evaluation.attack.startswith("Auto") else "",
            "mode": "reference" if config["reference"] else "fast",
            "seed": config["seed"],
            "batch_size": config["batch_size"],
        },
        "cost": findings.cost(ledger, crew.workers, crew.device),
        **crew.ask([findings.machine])[0],
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
    """Report, card, JSON and records: in storage, on the terminal, in the model's run, and at its version.

    What a person waits for comes first: a tracking server that is away takes nothing of it.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        here = Path(folder)
        with records.Writer(here / records.NAME, records.about(found)) as writer:
            writer.write(findings.records(ledger, evaluation.chains, evaluation.exam))
        (here / PAGE).write_text(report.page(found, extra.pictures))
        (here / CARD).write_text(report.card(found))
        (here / FILE).write_text(json.dumps(found, indent=2) + "\n")
        notes = _submission(evaluation.config, found, here)
        storage.upload(here, evaluation.place)
        outcome.leave(found, evaluation.config["json"])
        for line in [*report.lines(found), *(f"note: {note}" for note in notes)]:
            console.print(line, soft_wrap=True, markup=False)
        console.print(f"report: {redact_text(evaluation.place)}/{PAGE}", soft_wrap=True)
        _log(evaluation, found, here, journal)


def _log(evaluation: Evaluation, found: Mapping[str, Any], folder: Path, journal: Journal) -> None:
    """Once for the same numbers, run and version."""
    uri, version, run_id = evaluation.config["tracking"]["uri"], evaluation.candidate.version, found["model"]["run_id"]
    told = {key: value for key, value in found.items() if key not in ("date", "command", "git", "cost")}
    mark = compose.digest({"uri": uri, "version": version, "found": told})
    journal.once(
        f"logged-{mark[:16]}",
        lambda: evaluations.log(uri, run_id, evaluation.name, folder, _metrics(found), version, _tags(found)),
    )


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


@contextmanager
def run(evaluation: Evaluation) -> Iterator[str]:
    """The model's run; or, for a model that comes from none, a run of its own, which ends as the block does."""
    config, own = evaluation.config, evaluation.candidate.run_id
    if own is not None:
        yield own
        return
    uri = config["tracking"]["uri"]
    run_id = runs.open_run(
        uri,
        config["tracking"]["experiment"],
        key=f"{evaluation.name}-{compose.digest(evaluation.identity)}",
        name=evaluation.name,
        params=redact({key: config[key] for key in config if key not in ("json", "tracking", "storage")}),
        tags={"evaluation.of": evaluation.candidate.source, "model_digest": evaluation.candidate.digest},
    )
    try:
        yield run_id
    except BaseException as error:
        with suppress(Failure):  # the error that ended it is the one to tell
            runs.close_run(uri, run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", 5.0)
        raise
    runs.close_run(uri, run_id)


def _metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """By attack: what PGD leaves must not take the place of what AutoAttack does."""
    attack = re.sub(r"[^a-z0-9]+", "-", found["attack"]["name"].lower())
    every = {"evaluation/clean_accuracy": found["clean"]["accuracy"]}
    if found["checked"]:
        every["evaluation/doubts"] = len(found["doubts"])
    for threat in found["threats"]:
        where = f"evaluation/{attack}/{threat['norm']}_{threat['eps']:.6g}"
        every[f"{where}/robust_accuracy"] = threat["robust"]["accuracy"]
        if threat["beyond"]:
            every[f"{where}/robust_accuracy_beyond"] = threat["beyond"]["robust"]["accuracy"]
    return every


def _tags(found: Mapping[str, Any]) -> dict[str, str]:
    """One tag an evaluation, so that no number stands beside another's n or doubts."""
    doubts = [doubt["name"] for doubt in found["doubts"]] if found["checked"] else "not looked for"
    about = {
        "attack": found["attack"],
        "n": found["data"]["n"],
        "data": found["data"]["digest"],
        "clean": found["clean"]["right"],
        "robust": {f"{t['norm']} {t['eps']:.6g}": t["robust"]["right"] for t in found["threats"]},
        "beyond": {
            f"{t['norm']} {t['eps']:.6g}": t["beyond"]["robust"]["right"] for t in found["threats"] if t["beyond"]
        },
        "doubts": doubts,
        "date": found["date"],
    }
    return {f"evaluation.{found['name']}": json.dumps(about)}

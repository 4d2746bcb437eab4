"""The steps of a retraining: sound data, a trained version, the gate's word, a report.  Each is done once."""

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines import compose, storage
from pipelines.errors import Failure, Misuse, Refused, Stopped
from pipelines.redact import redact_text
from pipelines.retraining import due, findings, manifest, told
from pipelines.retraining.job import Job, Seen
from pipelines.retraining.manifest import Manifest
from pipelines.retraining.plan import Plan
from pipelines.tracking import export, git, retrainings, runs, versions
from pipelines.tracking.lease import Lease
from pipelines.tracking.registry import ARTEFACT
from pipelines.tracking.versions import Version
from pipelines.train import Within, train


def sound(job: Job, seen: Seen, held: Lease, before: Manifest | None) -> None:
    """Whether the data can be trained on.  Errors: ``Refused`` with what was found, told once for the same data."""
    from pipelines import parts
    from pipelines.retraining.reading import read

    asked = findings.checks(job.config["checks"])
    reading = findings.Reading(0, ())
    if not seen.data.unread:
        reading = read(parts.source(job.base), asked.read)
    found = findings.findings(seen.data, before, reading, asked)
    if not found:
        beside = "" if before else " (and nothing to compare with: what the champion was trained on is not known)"
        images = f"{seen.data.total('train'):,} training images, {reading.opened:,} opened"
        job.say(f"data: {images}, nothing wrong with them{beside if seen.champion else ''}")
        return
    mark = compose.digest({"data": seen.data.digest, "found": found})
    new = not any(record.facts.get("findings") == mark for record in held.earlier)
    text = f"bad data, nothing was trained: {'; '.join(found)}"
    told_now = told.found(told.BAD_DATA, job.target, text, seen.reasons, findings=found, data=told.data(seen.data))
    job.leave({**told_now, "id": f"{job.target}-{held.record.number}"}, send=new)
    held.note({"findings": mark, "said": text[:1000]}, told.markdown(told_now))
    for each in found:
        job.say(f"data: {each}")
    raise Refused(f"{job.target}: bad data; nothing was trained")


def start(job: Job, champion: Version | None) -> str | None:
    """The champion's artefact, whose weights a warm start begins from, kept where every worker finds it."""
    if champion is None:
        return None
    digest = champion.tags.get(ARTEFACT, "")
    if not storage.files(job.place).exists(f"{_weights(job, digest)}/weights.safetensors"):
        with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
            here = export.files_in(versions.fetch(job.uri, champion.name, champion.number, Path(folder)))
            if here is None:
                raise Misuse(
                    f"warm=true: {champion.name}/{champion.number} holds no weights of holdfast's to begin with; leave "
                    "warm out"
                )
            only = Path(folder) / "warm"
            only.mkdir()
            for name in export.FILES:
                shutil.copyfile(here / name, only / name)
            storage.upload(only, _weights(job, digest))
    return digest


def _weights(job: Job, digest: str) -> str:
    return f"{job.place}/champions/{digest[:16] or 'unknown'}"


def carry_out(
    job: Job, seen: Seen, held: Lease, todo: Plan, facts: Mapping[str, Any], page: str, judged: Mapping[str, Any]
) -> None:
    """Train, gate, promote, report; ``facts``: of the steps that are done, and ``page``: what the gate said then.

    Errors: ``Refused`` if the gate refused.
    """
    reasons = [asdict(reason) for reason in seen.reasons]
    before = seen.champion.number if seen.champion else None
    held.note({"plan": asdict(todo), "reasons": reasons, "before": before, **facts}, page)
    run_id = runs.open_run(
        job.uri,
        job.base["tracking"]["experiment"],
        key=f"retrain-{job.target}-{todo.digest}",
        name=f"{job.target}-retraining-{todo.digest[:10]}",
        params={"recipe": job.base["recipe"], "plan": asdict(todo)},
        tags={"retraining": job.target, "retraining.reasons": "; ".join(reason.said for reason in seen.reasons)},
        git=git.state(),
    )
    held.note({"run_id": run_id})
    try:
        version = _train(job, seen, held, todo, run_id)
        page = _gate(job, held, version, judged)
        _report(job, seen, held, version, run_id, page)
    except BaseException as error:
        if not isinstance(error, Refused):
            with suppress(Failure):  # the error that ended it is the one to tell
                stopped = isinstance(error, KeyboardInterrupt | Stopped)
                runs.close_run(job.uri, run_id, "KILLED" if stopped else "FAILED", 5.0)
        raise


def _train(job: Job, seen: Seen, held: Lease, todo: Plan, run_id: str) -> int:
    """The version's number."""
    if number := held.record.facts.get("version"):
        return int(number)
    lines = [
        f"name={job.base['recipe']}-{todo.digest[:10]}"
    ]  # other code, or another turn, does not go on with an older training
    lines += [f"seed={job.base['seed'] + todo.turn}"] if todo.turn else []
    lines += [f"model.weights={_weights(job, todo.start)}"] if todo.start else []
    config = compose.compose("train", [*job.lines, *lines], job.recipes)
    tags = {"mlflow.parentRunId": run_id, "retraining": job.target}
    done = train(config, job.console, job.debug, within=Within(todo.digest[:16], tags))
    assert done.version is not None
    made = {due.MANIFEST: todo.manifest, due.RECIPE_TAG: todo.recipe, "retrain.run_id": run_id}
    versions.tag(job.uri, job.name, done.version, {**made, "retrain.reasons": "; ".join(r.said for r in seen.reasons)})
    held.note({"version": done.version})
    return done.version


def _gate(job: Job, held: Lease, version: int, judged: Mapping[str, Any]) -> str:
    """Its table, in Markdown."""
    from pipelines.promote import Gatekeeper
    from pipelines.promotion.policy import policy

    if "outcome" in held.record.facts:
        return str(held.record.text)
    there = versions.served(job.uri, job.target, job.name, version)
    if there and (why := there.tags.get(versions.ROLLED_BACK)):
        said = f"{job.name}/{version} was rolled back ({why}), and does not come back by itself"
        held.note({"outcome": told.REFUSED, "said": said, "failed": []})
        return ""
    gatekeeper = Gatekeeper(job.gate(version), policy(job.config["policy"]), dict(judged), job.console, job.debug)
    refused = ""
    try:
        gatekeeper.look()
    except Refused as error:
        refused = str(error)
        if gatekeeper.outcome.get("passed") is not False:  # it had passed, and the champion was moved meanwhile
            raise Failure(f"{refused}; the same command goes on") from error
    outcome = told.REFUSED if refused else told.PROMOTED
    said = refused or f"{job.name}/{version} is the champion"
    held.note({"outcome": outcome, "said": said, "failed": list(gatekeeper.outcome.get("failed", ()))}, gatekeeper.page)
    return gatekeeper.page


def _report(job: Job, seen: Seen, held: Lease, version: int, run_id: str, page: str) -> None:
    facts = held.record.facts
    found = told.found(
        facts["outcome"],
        job.target,
        facts["said"],
        seen.reasons,
        id=f"{job.target}-{held.record.number}",
        version=version,
        before=facts["before"],
        failed=facts["failed"],
        data=told.data(seen.data),
        run_id=run_id,
        tracking_uri=redact_text(job.uri),
    )
    retrainings.log(job.uri, run_id, found, manifest.to_json(seen.data).decode(), told.markdown(found, page))
    runs.close_run(job.uri, run_id)
    job.leave(found, page)
    job.say(found["text"])
    if facts["outcome"] == told.REFUSED:
        raise Refused(f"{facts['said']}; the champion stays")

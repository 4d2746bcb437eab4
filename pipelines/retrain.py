"""``holdfast retrain``: is there anything to do?  If so: train, evaluate, gate, promote, report, each of them once."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import compose, places, science, storage
from pipelines.errors import Failure, Lost, Misuse, first_line
from pipelines.retraining import due, manifest, notice, plan, told
from pipelines.retraining.due import MANIFEST, Made
from pipelines.retraining.job import Job, Seen
from pipelines.retraining.manifest import Manifest
from pipelines.settings import Retrain
from pipelines.tracking import lease, runs, server, versions
from pipelines.tracking.audit import Record
from pipelines.tracking.lease import Busy, Lease
from pipelines.tracking.versions import CHAMPION, ROLLED_BACK, Version

OURS = tuple(Retrain.__dataclass_fields__)
CARRIED = ("before", "version", "outcome", "failed", "said")
"""Facts of a retraining that was left: steps that need not be done again."""


def retrain(
    lines: Sequence[str],
    console: Console,
    recipes: Path | None,
    json: str | None,
    force: bool = False,
    debug: bool = False,
) -> None:
    """One look, and what follows from it.  ``lines``: settings of the retraining, and of its training.

    Errors: ``Refused`` for bad data and for a model that the gate refused; ``Misuse`` before any work; ``Failure`` with
    everything kept that was done, which the same command goes on with.
    """
    job = understood(lines, console, recipes, json, debug)
    server.check(job.uri)
    job.warn(notice.catch_up(job.config["notify"], job.place))
    try:
        _look(job, force)
    except (Failure, Lost, Misuse) as error:
        job.leave(told.found(told.FAILED, job.target, str(error)))
        raise


def understood(
    lines: Sequence[str], console: Console, recipes: Path | None, json: str | None = None, debug: bool = False
) -> Job:
    """What ``lines`` ask for.  Errors: ``Misuse`` for one that neither the retraining nor its training knows."""
    ours = [line for line in lines if line.lstrip("+").partition("=")[0].partition(".")[0] in OURS]
    theirs = [line for line in lines if line not in ours]
    config = compose.compose("retrain", ours, recipes)
    base = places.located(compose.compose("train", theirs, recipes))
    job = Job(config, base, tuple(theirs), recipes, console, json, debug)
    job.check()
    return job


def _look(job: Job, force: bool) -> None:
    seen = _see(job, force)
    left = lease.unfinished(lease.records(job.uri, job.target))
    if not seen.reasons and left is None:
        champion = f"champion {job.target}/{seen.champion.number}" if seen.champion else "champion"
        _nothing(job, f"nothing to do: data, recipe and code are those of the {champion}")
        return
    try:
        with Lease(job.uri, job.target) as held:
            _work(job, _see(job, force), held)
    except Busy as busy:
        text = f"{busy.record.by} is at it since {_clock(busy.record.at)} (record {busy.record.number}); left to them"
        job.leave(told.found(told.ELSEWHERE, job.target, text), send=False)
        job.say(f"{job.target}: {text}")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _nothing(job: Job, why: str) -> None:
    job.leave(told.found(told.NOTHING, job.target, why), send=False)
    job.say(f"{job.target}: {why}")


def _see(job: Job, force: bool) -> Seen:
    data = _manifest(job)
    there = versions.aliases(job.uri, job.target) if versions.exists(job.uri, job.target) else {}
    champion = versions.find(job.uri, job.target, there[CHAMPION]) if CHAMPION in there else None
    recipe, code = compose.digest(compose.recipe(job.base)), science.digest(job.base["trust"])
    now = Made(data.digest, recipe, code, time.time())
    fell: list[str] = []
    if champion and job.config["when"]["fresh"]:
        from pipelines.promotion import judging
        from pipelines.retraining.fallen import fallen

        config = job.gate()
        fell = fallen(champion, config, judging.judged(config, job.recipes), job.recipes, job.console, job.debug)
    was = _recognised(job, champion, data) if champion else None
    return Seen(data, champion, was, now, due.reasons(was, now, due.when(job.config["when"]), fell, force))


def _manifest(job: Job) -> Manifest:
    """Of the data as they are, kept for the next look and for whoever asks what a version was trained on."""
    known = _stored(job, "latest")
    data = manifest.take(job.base, known)
    if data is not known:
        for name in (data.digest, "latest"):
            storage.write(f"{job.place}/manifests/{name}.json", manifest.to_json(data))
    return data


def _stored(job: Job, name: str) -> Manifest | None:
    path = f"{job.place}/manifests/{name}.json"
    try:
        with storage.files(path).open(path) as file:
            return manifest.from_json(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        job.warn([f"{path} is left out of account: {first_line(error)}"])
        return None


def _recognised(job: Job, champion: Version, data: Manifest) -> Made:
    """A champion that `holdfast train` or `tune` made knows the digest of its images, and no manifest; and files may
    come and go beside the images.  Only a digest of every byte tells."""
    was = due.made(champion)
    if was.manifest != data.digest and champion.tags.get("data_digest") and not data.unread:
        from pipelines import parts
        from trainers.data.examples import CONTENT_LIMIT

        try:
            same = data.bytes <= CONTENT_LIMIT and parts.data(job.base).digest == champion.tags["data_digest"]
        except (Misuse, ValueError, OSError):  # findings say what is wrong with them
            return was
        if same:
            versions.tag(job.uri, champion.name, champion.number, {MANIFEST: data.digest})
            return Made(data.digest, was.recipe, was.code, was.since)
    return was


def _work(job: Job, seen: Seen, held: Lease) -> None:
    """What the reasons ask for, less what earlier records say is done."""
    from pipelines.promotion import judging
    from pipelines.retraining import steps

    left = lease.unfinished(held.earlier)
    before = plan.from_facts(left.facts) if left else None
    concluded = {made.digest: r for r in held.earlier if "outcome" in r.facts and (made := plan.from_facts(r.facts))}
    forced = sum(r.facts["plan"]["turn"] >= plan.FORCED for r in concluded.values())
    start = steps.start(job, seen.champion) if job.config["warm"] else None
    policy = compose.digest(job.config["policy"])
    todo = plan.plan(seen.now, policy, start, seen.reasons, seen.champion.number if seen.champion else 0, forced)
    facts: dict[str, Any] = {}
    page = ""
    if left and before and before.same_work(todo):
        todo, page = before, left.text
        facts = {key: left.facts[key] for key in CARRIED if key in left.facts}
        job.say(f"{job.target}: going on with record {left.number}, which {left.by} began at {_clock(left.at)}")
    elif not seen.reasons:
        _nothing(job, "nothing to do: what was begun was about other data, another recipe or other code")
        return
    elif done := concluded.get(todo.digest):
        if not _again(job, seen, done):
            why = f"this was trained before, and {done.facts['said']}; --force trains it with another seed"
            _nothing(job, f"nothing to do: {why}")
            return
        facts = {"version": done.facts["version"]}
        job.say(
            f"{job.target}: this was trained before, as {job.name}/{facts['version']}; the champion is another one now"
        )
    for reason in seen.reasons:
        job.say(f"{job.target}: {reason.said}")
    if left and "run_id" in left.facts and not facts and before != todo:
        runs.close_run(job.uri, left.facts["run_id"], "KILLED")
    steps.sound(job, seen, held, _stored(job, seen.was.manifest) if seen.was and seen.was.manifest else None)
    steps.carry_out(job, seen, held, todo, facts, page, judging.judged(job.gate(), job.recipes))


def _again(job: Job, seen: Seen, done: Record) -> bool:
    """Whether the gate has something new to say of a version: against another champion, unless people took it back."""
    number = seen.champion.number if seen.champion else None
    source = f"models:/{job.name}/{done.facts['version']}"
    for there in versions.listed(job.uri, job.target) if seen.champion else []:
        same = source in (f"models:/{there.name}/{there.number}", there.tags.get(versions.COPIED))
        if same and (there.number == number or there.tags.get(ROLLED_BACK)):
            return False
    return number != done.facts["before"]

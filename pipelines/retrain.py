"""``holdfast retrain``: is there anything to do?  If so: train, evaluate, gate, promote, report, each of them once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import compose, places, science, storage
from pipelines.errors import Misuse, Refused, Stopped, first_line
from pipelines.redact import redact_text
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
    try:
        job.warn(notice.catch_up(job.config["notify"], job.place))
        server.check(job.uri)
        _look(job, force)
    except (Refused, Stopped):
        raise
    except Exception as error:
        job.leave(told.found(told.FAILED, job.target, redact_text(first_line(error))))
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
    seen = _see(job, force, ask=False)
    left = lease.unfinished(lease.records(job.uri, job.target))
    if not seen.reasons and seen.asked and left is None:
        _as_it_is(job, seen)
        return
    try:
        with Lease(job.uri, job.target) as held:
            _work(job, _see(job, force, ask=True), held)
    except Busy as busy:
        text = f"{busy.record.by} is at it since {_clock(busy.record.at)} (record {busy.record.number}); left to them"
        job.leave(told.found(told.ELSEWHERE, job.target, text), send=False)
        job.say(f"{job.target}: {text}")


def _as_it_is(job: Job, seen: Seen) -> None:
    number = seen.champion.number if seen.champion else 0
    same = [what for what in ("data", "recipe", "code") if job.config["when"][what]]
    what = " and ".join([", ".join(same[:-1]), same[-1]]) if len(same) > 1 else "".join(same) or "what is asked about"
    are = "are those" if len(same) > 1 else "is that"
    _nothing(job, f"nothing to do: {what} {are} of the champion {job.target}/{number}")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _nothing(job: Job, why: str) -> None:
    job.leave(told.found(told.NOTHING, job.target, why), send=False)
    job.say(f"{job.target}: {why}")


def _see(job: Job, force: bool, ask: bool) -> Seen:
    """``ask``: whether the champion is attacked on fresh images, if there are any it was not yet."""
    data = _manifest(job, job.base, "latest")
    there = versions.aliases(job.uri, job.target) if versions.exists(job.uri, job.target) else {}
    champion = versions.find(job.uri, job.target, there[CHAMPION]) if CHAMPION in there else None
    recipe, code = compose.digest(compose.recipe(job.base)), science.digest(job.base["trust"])
    now = Made(data.digest, recipe, code, time.time())
    fell: list[str] | None = []
    if champion and job.config["when"]["fresh"]:
        from pipelines.promotion import judging
        from pipelines.retraining.fallen import fallen

        judged = judging.judged(job.gate(), job.recipes)
        fell = fallen(job, champion, judged, lambda config: _manifest(job, config, "fresh"), ask)
    was = _recognised(job, champion, data) if champion else None
    reasons = due.reasons(was, now, due.when(job.config["when"]), fell or (), force)
    return Seen(data, champion, was, now, reasons, asked=fell is not None)


def _manifest(job: Job, config: Mapping[str, Any], name: str) -> Manifest:
    """Of the data as they are, kept for the next look and for whoever asks what a version was trained on."""
    known = _stored(job, name)
    data = manifest.take(config, known)
    if data is not known:
        for each in (data.digest, name):
            storage.write(f"{job.place}/manifests/{each}.json", manifest.to_json(data))
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
    number = seen.champion.number if seen.champion else 0
    todo = plan.plan(seen.now, policy, start, seen.reasons, number, forced)
    facts: dict[str, Any] = {}
    page = ""
    if left and before and before.same_work(todo):
        todo, page = before, left.text
        carried = CARRIED if "outcome" in left.facts else ("version",)
        facts = {key: left.facts[key] for key in carried if key in left.facts}
        job.say(f"{job.target}: going on with record {left.number}, which {left.by} began at {_clock(left.at)}")
    elif not seen.reasons:
        _as_it_is(job, seen)
        return
    elif done := concluded.get(todo.digest):
        why = _settled(job, seen, done)
        if why and {due.AGE, due.FALLEN} & {reason.kind for reason in seen.reasons}:
            todo = replace(todo, turn=number)  # the same data, but with a seed of its own
            done = concluded.get(todo.digest)
            why = _settled(job, seen, done) if done else ""
        if why:
            _nothing(job, f"nothing to do: this was trained before, and {why}; --force trains it with another seed")
            return
        if done:
            facts = {"version": done.facts["version"]}
            job.say(f"{job.target}: this was trained before, as {job.name}/{facts['version']}; the gate is asked again")
    for reason in seen.reasons:
        job.say(f"{job.target}: {reason.said}")
    if left and "run_id" in left.facts and not facts and before != todo:
        runs.close_run(job.uri, left.facts["run_id"], "KILLED")
    steps.sound(job, seen, held, _stored(job, seen.was.manifest) if seen.was and seen.was.manifest else None)
    steps.carry_out(job, seen, held, todo, facts, page, judging.judged(job.gate(), job.recipes))


def _settled(job: Job, seen: Seen, done: Record) -> str:
    """Why the gate has nothing new to say of the version that ``done`` trained; empty if it has."""
    version = f"{job.name}/{done.facts['version']}"
    there = versions.served(job.uri, job.target, job.name, done.facts["version"])
    if there and seen.champion and there.number == seen.champion.number:
        return f"{version} is the champion"
    if there and (why := there.tags.get(ROLLED_BACK)):
        return f"{version} was rolled back ({why})"
    number = seen.champion.number if seen.champion else None
    if done.facts["outcome"] == told.REFUSED and number == done.facts["before"]:
        return str(done.facts["said"])
    return ""

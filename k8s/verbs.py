"""The verbs of this package, from words to an exit code; ``pipelines.cli`` calls them."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from k8s import submit as submitting
from k8s.errors import Misuse
from k8s.state import State

FOLLOWING = ("submit", "status", "logs")
HELP = {
    "submit": "holdfast submit [KEY=VALUE ...] [--no-wait] [--entrypoint-code] [--json FILE] -- VERB [KEY=VALUE ...]",
    "render": "holdfast render [rayjob|raycluster|cronjob|raycronjob|pools] [KEY=VALUE ...] [-- VERB ...]",
    "status": "holdfast status JOB [KEY=VALUE ...] [--json FILE]",
    "logs": "holdfast logs JOB [KEY=VALUE ...]",
    "cancel": "holdfast cancel JOB [KEY=VALUE ...]",
    "list": "holdfast list [KEY=VALUE ...] [--json FILE]",
}


def run(verb: str, words: Sequence[str], command: Sequence[str], out: Path | None, wait: bool, own_code: bool) -> int:
    """What is said of a job goes to stderr, what it writes itself to stdout.  Errors: ``k8s.errors.Ended``."""
    if command and verb not in ("submit", "render"):
        raise Misuse(f"{verb} takes no command after --: {HELP[verb]}")
    for flag, given, verbs in (("--no-wait", not wait, ("submit",)), ("--entrypoint-code", own_code, FOLLOWING)):
        if given and verb not in verbs:
            raise Misuse(f"{flag}: {verb} knows no such thing; it is for {', '.join(verbs)}")
    if out is not None and verb not in ("submit", "status", "list"):
        raise Misuse(f"--json {out}: {verb} leaves nothing; it is for submit, status and list")
    if verb == "render":
        from k8s.render import render

        print(render(words, command), end="")
        return 0
    if verb == "submit":
        found = submitting.submit(words, command, say, line, wait, out)
        say(f"{found.name} {found.told()}")
        return submitting.exit_code(found, own_code)
    if verb == "list":
        return _list(words, out)
    name, rest = _named(verb, words)
    if verb == "cancel":
        submitting.cancel(name, rest, say)
        say(f"{name} cancelled")
        return 0
    if verb == "logs":
        found = submitting.logs(name, rest, say, line)
        say(f"{name} {found.told()}")
        return submitting.exit_code(found, own_code)
    found = submitting.status(name, rest, say, out)
    print(f"{name} {found.told()}")
    return submitting.exit_code(found, own_code)


def _list(words: Sequence[str], out: Path | None) -> int:
    submitting.fresh(out)
    found = submitting.listing(words, say)
    if out is not None:
        import json

        out.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    if not found:
        print("no jobs")
    for each in found:
        print(f"{each.name:<48}{each.started or '-':<22}{_word(each):<20}{each.line}")
    return 0


def _word(found: State) -> str:
    return found.told().partition(":")[0]


def _named(verb: str, words: Sequence[str]) -> tuple[str, list[str]]:
    names = [word for word in words if "=" not in word]
    if len(names) != 1:
        raise Misuse(f"{verb} takes one job: {HELP[verb]}")
    return names[0], [word for word in words if "=" in word]


def say(text: str) -> None:
    print(f"holdfast: {text}", file=sys.stderr, flush=True)


def line(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has seen enough; the job's end is still to be waited for
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage(verb: str) -> str:
    from k8s.settings import listing

    return f"{HELP[verb]}\n\nsettings:\n{listing()}\n"

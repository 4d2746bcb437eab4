"""``holdfast promote``: the gate attacks what is registered, says why, and moves the champion if it passed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from pipelines import compose, outcome, storage
from pipelines.errors import Failure, Lost, Misuse, Refused
from pipelines.evaluate import evaluate
from pipelines.promotion import artefact, gate, judging, move, shown
from pipelines.promotion.evidence import Evidence, evidence
from pipelines.promotion.gate import Clause, Decision
from pipelines.promotion.move import Plan
from pipelines.promotion.policy import Policy, policy
from pipelines.tracking import audit, holding, registry, server, versions
from pipelines.tracking.registry import ARTEFACT
from pipelines.tracking.versions import CHALLENGER, CHAMPION, COPIED


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
    gatekeeper = Gatekeeper(config, policy(config["policy"]), judging.judged(config, recipes), console, debug)
    registry.check_name(config["name"], "name")
    registry.check_name(config["to"] or config["name"], "to")
    _places(config)
    server.check_there(config["tracking"]["uri"])
    if config["watch"] is None:
        gatekeeper.look()
        return
    while True:
        gatekeeper.glance()
        time.sleep(config["watch"])


def _places(config: Mapping[str, Any]) -> None:
    outcome.check(config["json"])
    outcome.check(config["markdown"], "markdown=")
    if config["watch"] is not None and config["watch"] <= 0:
        raise Misuse(f"watch={config['watch']:g} must be above 0: the seconds from look to look")


class Gatekeeper:
    """Between a registry and its champion.  ``judged``: how versions are evaluated."""

    def __init__(
        self, config: Mapping[str, Any], policy: Policy, judged: dict[str, Any], console: Console, debug: bool
    ) -> None:
        self._config, self._policy, self._judged, self._debug = config, policy, judged, debug
        self._console, self._uri = console, str(config["tracking"]["uri"])
        self._refused: set[Request] = set()
        self.outcome: dict[str, Any] = {}
        self.page = ""
        """Of the last look: what ``--json`` and ``markdown`` leave."""
        self._said = ""

    def look(self) -> None:
        """Judge who asks, if anybody does."""
        asked = self._asked()
        if asked is not None:
            self._decide(asked)

    def glance(self) -> None:
        """A look that outlives what is wrong with one challenger, and the registry's absence."""
        asked = None
        try:
            asked = self._asked()
            if asked and asked not in self._refused:
                self._decide(asked)
        except Refused as error:
            self._refused |= {asked} if asked else set()
            self._say(f"holdfast: {error}")
        except (Misuse, Failure, Lost) as error:
            self._say(f"holdfast: {error}")

    def _say(self, line: str) -> None:
        """Not again what was said at the look before."""
        if line != self._said:
            self._console.print(line, soft_wrap=True, markup=False)
        self._said = line

    def _asked(self) -> Request | None:
        """Who wants to be champion; None if nobody does, or it is already."""
        name, target = self._config["name"], self._config["to"] or self._config["name"]
        theirs: dict[str, int] = {}
        if versions.exists(self._uri, target):
            move.tidy(self._uri, target)
            if said := move.by_hand(self._uri, target):
                self._say(f"warning: {said}")
            theirs = versions.aliases(self._uri, target)
        asked = self._config["version"]
        number = asked if asked is not None else versions.aliases(self._uri, name).get(CHALLENGER)
        if number is None:
            self._nothing(f"{name} has no challenger: set that alias, or give version=NUMBER")
            return None
        candidate, champion = versions.find(self._uri, name, number), theirs.get(CHAMPION)
        if why := candidate.tags.get(versions.ROLLED_BACK):
            self._say(f"warning: {name}/{number} was champion and was rolled back: {why}")
        if champion is not None:
            there = versions.find(self._uri, target, champion)
            copied = there.tags.get(COPIED) == f"models:/{name}/{number}"
            same = there.tags.get(ARTEFACT) == candidate.tags.get(ARTEFACT)
            if (name, number) == (target, champion) or (copied and same):
                self._nothing(f"{name}/{number} is the champion of {target} already")
                return None
        return Request(name, number, target, champion)

    def _nothing(self, why: str) -> None:
        """No older outcome is left where a script looks for one."""
        self._say(why)
        if self._config["markdown"]:
            storage.write(str(Path(self._config["markdown"]).absolute()), f"{why}.\n".encode())
        self.outcome = {"passed": None, "why": why}
        outcome.leave(self.outcome, self._config["json"])

    def _decide(self, asked: Request) -> None:
        """What is cheap to refuse comes first: nothing is attacked for hours that is refused all the same."""
        exam = judging.images(self._judged)
        x = judging.pixels(exam)
        inspected = artefact.inspect(self._uri, asked.name, asked.number, x)
        early = [*gate.weighed(inspected), *gate.images(exam.digest, len(exam), self._policy)]
        theirs = None
        if asked.champion is not None:
            theirs = artefact.inspect(self._uri, asked.target, asked.champion, x)
            early.append(gate.intact("champion's artefact", theirs))
        champion = f"{asked.target}/{asked.champion}" if asked.champion is not None else None
        if not all(clause.passed for clause in early):
            self._refuse(asked, Decision(str(asked), champion, tuple(early)), {"artefact": inspected.digest})
        candidate = self._evidence(asked.name, asked.number, inspected)
        other = self._evidence(asked.target, asked.champion, theirs) if theirs and asked.champion is not None else None
        decision = gate.decide(candidate, other, self._policy)
        proof = {
            "policy": compose.digest(self._config["policy"]),
            "evidence": candidate.digest,
            "champion_evidence": other.digest if other else None,
            "artefact": inspected.digest,
            "data": candidate.data,
        }
        if decision.passed and not artefact.unchanged(self._uri, asked.name, asked.number, inspected.digest):
            changed = Clause("artefact, after the attacks", "what was judged", "changed while it was judged", False)
            decision = Decision(decision.candidate, decision.champion, (*decision.clauses, changed))
        if not decision.passed:
            self._refuse(asked, decision, proof)
        self._promote(asked, decision, proof)

    def _evidence(self, name: str, number: int, inspected: artefact.Artefact) -> Evidence:
        model = {**self._judged["model"], "source": f"models:/{name}/{number}"}
        found = evaluate({**self._judged, "model": model}, self._console, debug=self._debug, what=holding.PROMOTE)
        return evidence(f"{name}/{number}", inspected, found)

    def _promote(self, asked: Request, decision: Decision, proof: Mapping[str, Any]) -> None:
        shown.show(decision, self._console)
        self._leave(asked, decision, {**proof, "record": None})
        number, tags = asked.number, self._tags(asked, decision, proof)
        if asked.target != asked.name:
            versions.tag(self._uri, asked.name, number, tags)
            found = versions.find(self._uri, asked.name, asked.number)
            number = versions.copy(self._uri, found, asked.target, tags)
        plan = Plan(asked.target, "promote", asked.champion, number, asked.champion)
        facts = {**proof, "candidate": str(asked), "passed": True}
        record = move.move(self._uri, plan, facts, shown.markdown(decision), tags)
        if asked.target != asked.name and versions.aliases(self._uri, asked.name).get(CHALLENGER) == asked.number:
            versions.point(self._uri, asked.name, CHALLENGER, None)
        self._leave(asked, decision, {**proof, "record": record.number})
        was = f", in place of version {asked.champion}" if asked.champion else ""
        undo = f"holdfast rollback name={asked.target} reason=..." if asked.champion else "take the alias away by hand"
        for line in (
            f"promoted: models:/{asked.target}@{CHAMPION} is version {number} now{was}",
            f"record {record.number} of {asked.target}{registry.RECORDS}; undo: {undo}",
        ):
            self._console.print(line, soft_wrap=True, markup=False)

    def _refuse(self, asked: Request, decision: Decision, proof: Mapping[str, Any]) -> NoReturn:
        """Nothing moves; why is told first, then written down, once."""
        shown.show(decision, self._console)
        self._leave(asked, decision, {**proof, "record": None})
        facts = {**proof, "candidate": str(asked), "before": asked.champion, "passed": False, "failed": decision.failed}
        facts["decision"] = compose.digest({"candidate": str(asked), "clauses": shown.plain(decision)["clauses"]})
        known = [r for r in audit.records(self._uri, asked.target) if r.facts.get("decision") == facts["decision"]]
        said = shown.markdown(decision)
        about = f"models:/{asked}"
        record = (
            known[-1] if known else audit.append(self._uri, asked.target, about, "promote", audit.REFUSED, facts, said)
        )
        versions.tag(self._uri, asked.name, asked.number, self._tags(asked, decision, proof))
        self._leave(asked, decision, {**proof, "record": record.number})
        raise Refused(f"{asked} is not promoted: {', '.join(decision.failed)}")

    def _tags(self, asked: Request, decision: Decision, proof: Mapping[str, Any]) -> dict[str, str]:
        """Under the target's name: another champion has another gate."""
        said = {**proof, "passed": str(decision.passed).lower(), "failed": ", ".join(decision.failed) or "none"}
        every = dict.fromkeys(("policy", "evidence", "champion_evidence", "artefact", "data"), "") | said
        return {f"gate.{asked.target}.{key}": str(value or "") for key, value in every.items()}

    def _leave(self, asked: Request, decision: Decision, proof: Mapping[str, Any]) -> None:
        self.page = shown.markdown(decision)
        if self._config["markdown"]:
            storage.write(str(Path(self._config["markdown"]).absolute()), self.page.encode())
        self.outcome = {**shown.plain(decision), "failed": decision.failed, "target": asked.target, **proof}
        outcome.leave(self.outcome, self._config["json"])

"""What a retraining was asked for, and what it saw: shared by everything that carries it out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import outcome, places, storage
from pipelines.errors import Misuse
from pipelines.redact import redact_text
from pipelines.retraining import due, notice, told
from pipelines.retraining.due import Made, Reason
from pipelines.retraining.manifest import Manifest
from pipelines.tracking import registry
from pipelines.tracking.versions import Version


@dataclass(frozen=True)
class Job:
    """What was asked for.  ``config``: of the retraining; ``base``: of its training, ``lines`` on the command line."""

    config: dict[str, Any]
    base: dict[str, Any]
    lines: tuple[str, ...]
    recipes: Path | None
    console: Console
    json: str | None
    debug: bool

    @property
    def name(self) -> str:
        return str(self.base["register_as"])

    @property
    def target(self) -> str:
        return str(self.config["to"] or self.name)

    @property
    def uri(self) -> str:
        return str(self.base["tracking"]["uri"])

    @property
    def place(self) -> str:
        return places.at(self.base["storage"], f"{self.target}.retraining")

    def check(self) -> None:
        """Errors: ``Misuse``."""
        from pipelines.promotion.policy import policy
        from pipelines.retraining import findings

        if self.base["register_as"] is None:
            raise Misuse("register_as is not set: say which registered model is kept up to date, register_as=digits")
        if self.base["name"] is not None:
            raise Misuse(f"name={self.base['name']}: each retraining makes a name of its own; leave name= out")
        registry.check_name(self.name)
        registry.check_name(self.target, "to")
        policy(self.config["policy"])
        due.when(self.config["when"])
        findings.checks(self.config["checks"])
        notice.check(self.config["notify"])
        outcome.check(self.json)
        outcome.check(self.config["markdown"], "markdown=")

    def say(self, line: str) -> None:
        self.console.print(redact_text(line), soft_wrap=True, markup=False)

    def warn(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.say(f"warning: {line}")

    def leave(self, found: dict[str, Any], page: str = "", send: bool = True) -> None:
        """For a script, for a pull request, and, where something happened, for whoever is to be told."""
        outcome.leave(found, self.json)
        if self.config["markdown"]:
            storage.write(str(Path(self.config["markdown"]).absolute()), told.markdown(found, page).encode())
        if send:
            self.warn(notice.tell(self.config["notify"], found, self.place))

    def gate(self, version: int | None = None) -> dict[str, Any]:
        """As ``holdfast promote`` would be told."""
        base = self.base
        return {
            "name": self.name,
            "version": version,
            "to": self.config["to"],
            "policy": self.config["policy"],
            "when": self.config["when"],
            "path": self.config["path"],
            "watch": None,
            "markdown": None,
            "json": None,
            "batch_size": 64,
            "compile": False,
            "workers": base["workers"],
            "device": base["device"],
            "tracking": base["tracking"],
            "storage": base["storage"],
        }


@dataclass(frozen=True)
class Seen:
    """``champion``: what serves, and ``was``: what it is made of; ``now``: what would be trained; ``reasons``: why.
    ``asked``: whether the champion was tried on all fresh images."""

    data: Manifest
    champion: Version | None
    was: Made | None
    now: Made
    reasons: list[Reason]
    asked: bool

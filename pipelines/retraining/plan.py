"""What one retraining is to do: the same plan is the same work, done once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines import compose
from pipelines.retraining import due
from pipelines.retraining.due import Made, Reason

FORCED = 1_000_000
"""The first seed's distance of a retraining that was asked for though nothing had changed."""


@dataclass(frozen=True)
class Plan:
    """``manifest``, ``recipe``, ``code``, ``policy``: digests of what goes in.  ``start``: of the artefact that a warm
    start begins from, None for random weights.  ``turn``: added to the recipe's seed; 0 where something is new."""

    manifest: str
    recipe: str
    code: str
    policy: str
    start: str | None
    turn: int

    @property
    def digest(self) -> str:
        return compose.digest(asdict(self))

    def same_work(self, other: "Plan") -> bool:
        """Whether both train on the same, whatever the seed."""
        return (self.manifest, self.recipe, self.code, self.policy) == (
            other.manifest,
            other.recipe,
            other.code,
            other.policy,
        )


def plan(now: Made, policy: str, start: str | None, reasons: Sequence[Reason], champion: int, forced: int) -> Plan:
    """``champion``: its version, 0 without one.  ``forced``: how often it was forced before.

    New data, code or a new recipe are trained with the recipe's seed; what was trained before with one of its own: one
    a champion for age and decay, so that a gate that refused is not asked again every night, and one more each time it
    is forced.
    """
    turn = 0
    kinds = {reason.kind for reason in reasons}
    if due.FORCED in kinds:
        turn = FORCED + forced
    elif kinds <= set(due.SAME):
        turn = champion
    return Plan(now.manifest or "", now.recipe or "", now.code or "", policy, start, turn)


def from_facts(facts: Mapping[str, Any]) -> Plan | None:
    """Of a record; None for one that came to no plan."""
    return Plan(**facts["plan"]) if "plan" in facts else None

"""What a champion must show: floors, how it must compare with the present one, which doubts are accepted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Misuse

BETTER, NOT_WORSE, ANY = "better", "not_worse", "any"
RULES = (BETTER, NOT_WORSE, ANY)


@dataclass(frozen=True)
class Bar:
    """Of one accuracy.  ``floor``, ``class_floor``: the least, over all images and in every class.  ``rule``: against
    the champion on the same images: ``better``; ``not_worse`` by ``margin`` or more; ``any``.  Shares in [0, 1]."""

    floor: float
    class_floor: float
    rule: str
    margin: float


@dataclass(frozen=True)
class Policy:
    """``clean``, ``robust``: the bars; robust accuracy is what AutoAttack and the attack beyond it leave.

    ``level``: of the one-sided tests against the champion.  ``doubts``: names of doubts that are accepted.  ``data``:
    the digest of the images that decide, None for any."""

    clean: Bar
    robust: Bar
    level: float
    doubts: tuple[str, ...]
    data: str | None


def policy(node: Mapping[str, Any]) -> Policy:
    """The policy of a config's ``policy``.  Errors: ``Misuse`` for a number out of range and an unknown rule."""
    clean, robust = (_bar(node[name], f"policy.{name}") for name in ("clean", "robust"))
    if not 0 < node["level"] < 0.5:
        raise Misuse(f"policy.level={node['level']:g} must be in (0, 0.5): the share of errors accepted, such as 0.05")
    if node["digest"] is not None and not re.fullmatch("[0-9a-f]{64}", node["digest"]):
        raise Misuse(f"policy.digest={node['digest']} is no digest: give all 64 digits, as evaluation.json has them")
    return Policy(clean, robust, node["level"], tuple(node["doubts"]), node["digest"])


def _bar(node: Mapping[str, Any], where: str) -> Bar:
    for name in ("floor", "class_floor"):
        if not 0 <= node[name] <= 1:
            raise Misuse(f"{where}.{name}={node[name]:g} must be in [0, 1]: a share of the images, such as 0.8")
    if node["rule"] not in RULES:
        raise Misuse(f"{where}.rule={node['rule']} is unknown; choose one of {', '.join(RULES)}")
    if not 0 <= node["margin"] < 1:
        raise Misuse(f"{where}.margin={node['margin']:g} must be in [0, 1): a share of the images, such as 0.02")
    if node["rule"] == NOT_WORSE and node["margin"] == 0:
        raise Misuse(
            f"{where}.rule={NOT_WORSE} needs a margin above 0, the loss that is too large: no number of images shows "
            f"that nothing was lost; set {where}.margin=0.02, or {where}.rule={BETTER}"
        )
    return Bar(node["floor"], node["class_floor"], node["rule"], node["margin"])

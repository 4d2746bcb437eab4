"""Evidence made by hand: sound, unless a test makes it otherwise."""

from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.promotion.artefact import Artefact
from pipelines.promotion.evidence import Evidence
from pipelines.promotion.gate import Clause, Decision
from pipelines.promotion.policy import NOT_WORSE, Bar, Policy

DIGEST, OTHER, NETWORK, DATA = "ab" * 32, "ba" * 32, "cd" * 32, "ef" * 32
LINF, L2 = "Linf 8/255", "L2 0.5"
CLASSES = ("cat", "dog", "owl", "yak")
ATTACK = {"name": "AutoAttack standard", "version": "standard", "mode": "fast", "seed": 0}
TAKES = "float32 pixels (3, 8, 8) in [0, 1]"


def artefact(**changes: Any) -> Artefact:
    sound = Artefact(DIGEST, DIGEST, NETWORK, TAKES, (3, 8, 8), difference=1e-6)
    return replace(sound, **changes)


def evidence(
    clean: float = 0.95, robust: float = 0.6, l2: float = 0.7, n: int = 1000, seed: int = 0, **changes: Any
) -> Evidence:
    """Of ``n`` images the shares that are right, to the image, drawn at random; as many of each class."""
    order = np.random.default_rng(seed).permutation(n)
    right = {LINF: order < round(robust * n), L2: order < round(l2 * n)}
    found = Evidence(
        version="pets/2",
        artefact=artefact(),
        network=NETWORK,
        attack=ATTACK,
        beyond=("malt",),
        data=DATA,
        classes=CLASSES,
        ids=np.arange(n),
        labels=np.arange(n) % len(CLASSES),
        clean=order < round(clean * n),
        autoattack=right,
        robust=right,
        doubts=(),
        digest="12" * 32,
    )
    found = replace(found, **changes)
    for array in (found.ids, found.labels, found.clean, *found.robust.values()):
        array.setflags(write=False)
    return found


def policy(clean: dict | None = None, robust: dict | None = None, **changes: Any) -> Policy:
    """What ``evidence()`` meets, beside itself too."""
    bars = Bar(0.9, 0.8, NOT_WORSE, 0.02), Bar(0.5, 0.4, NOT_WORSE, 0.02)
    asked = Policy(replace(bars[0], **clean or {}), replace(bars[1], **robust or {}), 0.05, (), DATA)
    return replace(asked, **changes)


def champion(found: Evidence | None = None, **changes: Any) -> Evidence:
    return replace(found or evidence(), **{"version": "pets/1", **changes})


def flipped(right: np.ndarray, gained: int, lost: int) -> np.ndarray:
    """So many of the wrong ones right, and of the right ones wrong."""
    other = right.copy()
    other[np.flatnonzero(~right)[:gained]] = True
    other[np.flatnonzero(right)[:lost]] = False
    return other


def moved(found: Evidence, gained: int, lost: int, *threats: str) -> Evidence:
    """``found`` with other verdicts at ``threats``; without any, on the images as they are."""
    if not threats:
        return replace(found, clean=flipped(found.clean, gained, lost))
    return replace(found, robust={**found.robust, **{t: flipped(found.robust[t], gained, lost) for t in threats}})


def wrong_in(found: Evidence, label: int, count: int) -> np.ndarray:
    """Right everywhere, but for the first ``count`` of a class."""
    right = np.ones(len(found.ids), bool)
    right[np.flatnonzero(found.labels == label)[:count]] = False
    return right


def names(decision: Decision) -> tuple[str, ...]:
    return tuple(clause.name for clause in decision.clauses)


def clause(decision: Decision, name: str) -> Clause:
    (found,) = (clause for clause in decision.clauses if clause.name == name)
    return found

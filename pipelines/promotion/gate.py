"""Whether a candidate may take the champion's place: clauses with their numbers, passed or failed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.promotion.artefact import Artefact
from pipelines.promotion.evidence import Evidence
from pipelines.promotion.policy import ANY, BETTER, Bar, Policy
from trainers.evaluation.intervals import mcnemar_gained, paired_score, wilson
from trainers.evaluation.paired import paired

SAME = 1e-3
"""How far the logits and gradients of the graph that is served may be from those of the network that was attacked, of
their largest: rounding is a hundredth of it."""
SHOWN = 5
"""Classes named."""


@dataclass(frozen=True)
class Clause:
    name: str
    asked: str
    found: str
    passed: bool


@dataclass(frozen=True)
class Decision:
    """``candidate``, ``champion``: ``name/3``."""

    candidate: str
    champion: str | None
    clauses: tuple[Clause, ...]

    @property
    def passed(self) -> bool:
        return all(clause.passed for clause in self.clauses)

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(clause.name for clause in self.clauses if not clause.passed)


def decide(candidate: Evidence, champion: Evidence | None, policy: Policy) -> Decision:
    """Every clause of ``policy``, none left out because another failed, but that what was evaluated otherwise is not
    compared.  Nothing is read and nothing is changed.

    Against the champion each accuracy is tested one-sided at ``policy.level`` on the images that both met: ``better``
    by McNemar's exact test, ``not_worse`` by ``paired_score``.  Every test must pass: more of them make no wrong
    promotion likelier.
    """
    clauses = [*weighed(candidate.artefact), *_evaluation(candidate, policy), _doubts(candidate, policy)]
    clauses += _floors("clean accuracy", candidate, candidate.clean, policy.clean)
    for threat, right in candidate.robust.items():
        alone = f"; AutoAttack alone leaves {_percent(float(candidate.autoattack[threat].mean()))}"
        clauses += _floors(f"robust accuracy, {threat}", candidate, right, policy.robust, alone)
    if champion is not None:
        clauses += _against(candidate, champion, policy)
    return Decision(candidate.version, champion.version if champion else None, tuple(clauses))


def weighed(artefact: Artefact) -> Iterator[Clause]:
    """Of the artefact alone, before any attack: it is what was registered, and the graph does what the network does."""
    yield intact("artefact", artefact)
    gap = artefact.difference
    yield Clause(
        "served graph",
        f"logits and gradients of the network, to {SAME:g} of the largest",
        artefact.problem or f"{gap:.1g} apart",
        not artefact.problem and gap <= SAME,
    )
    asked = f"float32 pixels {artefact.judged} in [0, 1]"
    yield Clause("input", asked, artefact.takes, artefact.takes == asked)


def intact(name: str, artefact: Artefact) -> Clause:
    if artefact.registered is None:
        found = "no digest was registered with it; train it under another name="
    else:
        same = artefact.registered == artefact.digest
        found = artefact.digest[:12] if same else f"{artefact.digest[:12]}, registered as {artefact.registered[:12]}"
    return Clause(name, "the digest it was registered with", found, artefact.registered == artefact.digest)


def _evaluation(candidate: Evidence, policy: Policy) -> Iterator[Clause]:
    attacked, registered = candidate.network, candidate.artefact.network
    yield Clause("attacked network", f"{registered[:12]}, the artefact's", attacked[:12], attacked == registered)
    name = candidate.attack["name"]
    yield Clause(
        "attack",
        "AutoAttack, and an attack beyond it",
        f"{name}, then {', '.join(candidate.beyond) or 'none'}",
        name.startswith("AutoAttack") and bool(candidate.beyond),
    )
    yield from images(candidate.data, len(candidate.ids), policy)


def images(digest: str, n: int, policy: Policy) -> Iterator[Clause]:
    """Whether the images are those that must decide."""
    if policy.data is not None:
        yield Clause("data", policy.data[:12], f"{digest[:12]}, {n:,} images", digest == policy.data)


def _doubts(candidate: Evidence, policy: Policy) -> Clause:
    asked = f"none but {', '.join(policy.doubts)}" if policy.doubts else "none"
    if candidate.doubts is None:
        return Clause("doubts", asked, "not looked for", False)
    open_ones = [doubt for doubt in candidate.doubts if doubt not in policy.doubts]
    accepted = [f"{doubt} (accepted)" for doubt in candidate.doubts if doubt in policy.doubts]
    return Clause("doubts", asked, ", ".join([*open_ones, *accepted]) or "none", not open_ones)


def _floors(what: str, candidate: Evidence, right: np.ndarray, bar: Bar, beside: str = "") -> Iterator[Clause]:
    n, count = len(right), int(right.sum())
    low, high = wilson(count, n)
    found = f"{_percent(count / n)} [{_percent(low)}, {_percent(high)}], {count:,} of {n:,}{beside}"
    yield Clause(what, f"at least {_percent(bar.floor)}", found, count >= bar.floor * n - 1e-9)
    if bar.class_floor > 0:
        yield _classes(what, candidate, right, bar.class_floor)


def _classes(what: str, candidate: Evidence, right: np.ndarray, floor: float) -> Clause:
    mine = [candidate.labels == label for label in range(len(candidate.classes))]
    shares = [(int(right[rows].sum()), int(rows.sum())) for rows in mine]
    asked = f"at least {_percent(floor)}"
    if absent := [name for name, (_, n) in zip(candidate.classes, shares, strict=True) if n == 0]:
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        return Clause(f"{what}, each class", asked, f"no image of {', '.join(absent[:SHOWN])}{more}", False)
    worst = min(range(len(shares)), key=lambda label: shares[label][0] / shares[label][1])
    count, n = shares[worst]
    below = sum(k < floor * m - 1e-9 for k, m in shares)
    found = f"worst {candidate.classes[worst]}: {_percent(count / n)}, {count:,} of {n:,}"
    return Clause(f"{what}, each class", asked, found + (f"; {below} classes below" if below > 1 else ""), below == 0)


def _against(candidate: Evidence, champion: Evidence, policy: Policy) -> Iterator[Clause]:
    alike = (
        np.array_equal(candidate.ids, champion.ids)
        and np.array_equal(candidate.labels, champion.labels)
        and (candidate.data, candidate.attack, candidate.beyond, tuple(candidate.robust))
        == (champion.data, champion.attack, champion.beyond, tuple(champion.robust))
    )
    found = f"{len(candidate.ids):,} of the candidate, {len(champion.ids):,} of the champion"
    yield Clause("same images, same attacks", "as the champion's", found if not alike else "they are", alike)
    yield intact("champion's artefact", champion.artefact)
    if not alike:
        return
    yield from _compared("clean accuracy", candidate.clean, champion.clean, policy.clean, policy.level)
    for threat, right in candidate.robust.items():
        yield from _compared(f"robust accuracy, {threat}", right, champion.robust[threat], policy.robust, policy.level)


def _compared(what: str, right: np.ndarray, champion: np.ndarray, bar: Bar, level: float) -> Iterator[Clause]:
    if bar.rule == ANY:
        return
    pair = paired(champion, right)
    if bar.rule == BETTER:
        asked, p = "better", mcnemar_gained(pair.gained, pair.lost)
    else:
        asked = f"not {_points(bar.margin)} points worse, or more"
        p = paired_score(pair.gained, pair.lost, pair.n, bar.margin)
    low, high = pair.interval
    found = (
        f"{100 * pair.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], {pair.gained:,} gained, "
        f"{pair.lost:,} lost, p {p:.2g}"
    )
    yield Clause(f"{what}, against the champion", f"{asked} (p at most {level:g})", found, p <= level)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:g}"

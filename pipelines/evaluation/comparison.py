"""What two models make of the same examples: who withstands what the other does not, and which attack decides it."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.joining import Joined, said
from pipelines.evaluation.radius import written
from pipelines.evaluation.records import WITHSTOOD, WRONG, Records
from trainers.evaluation.paired import Paired, paired

SHOWN = 5
"""Examples named each way."""
CLEAN, AUTOATTACK, BEYOND = "clean", "AutoAttack", "AutoAttack and beyond"


@dataclass(frozen=True)
class Example:
    """One that only one of both gets right; ``fate``: what became of it with the other."""

    id: int
    name: str
    label: str
    fate: str


@dataclass(frozen=True)
class Only:
    """What one model gets right and the other does not: how many, what fooled the other ("clean": it is wrong as it
    is), and the first few."""

    n: int
    fooled_by: dict[str, int]
    first: tuple[Example, ...]


@dataclass(frozen=True)
class ClassDifference:
    """``a``, ``b``: of the ``n`` examples of this class, how many are right; ``interval``: of ``(b - a) / n``."""

    label: str
    n: int
    a: int
    b: int
    interval: tuple[float, float]


@dataclass(frozen=True)
class Measure:
    """``what``: "clean", "AutoAttack" or "AutoAttack and beyond"; ``norm``, ``eps``: of the threat, None for clean;
    ``classes``: by ``|b - a| / n``, the largest first."""

    what: str
    norm: str | None
    eps: float | None
    paired: Paired
    sentence: str
    classes: tuple[ClassDifference, ...]
    only_a: Only
    only_b: Only

    @property
    def title(self) -> str:
        return self.what if self.eps is None else f"{self.what}, {self.norm} {written(self.eps)}"


def measure(joined: Joined, what: str) -> Measure:
    """``what`` of the joined examples.  "AutoAttack and beyond" needs ``joined.beyond``."""
    a, b, rows_a, rows_b = joined.a, joined.b, joined.rows_a, joined.rows_b
    right_a, right_b = _right(a, rows_a, what), _right(b, rows_b, what)
    norm, eps = joined.threat or (None, None)
    found = paired(right_a, right_b)
    return Measure(
        _shown(what, joined),
        norm,
        eps,
        found,
        _sentence(found, joined, what),
        tuple(_classes(joined, right_a, right_b)),
        only_a=_only(b, rows_b[right_a & ~right_b], what),
        only_b=_only(a, rows_a[right_b & ~right_a], what),
    )


def _shown(what: str, joined: Joined) -> str:
    """With the name of the attack that both met."""
    names = {records.about["attack"]["name"] for records in (joined.a, joined.b)}
    return what.replace(AUTOATTACK, names.pop() if len(names) == 1 else "each its own attack")


def _right(records: Records, rows: np.ndarray, what: str) -> np.ndarray:
    columns = records.columns
    if what == CLEAN:
        # Not by prediction and label: an image that could not be read is wrong whatever its blank is taken for.
        found: np.ndarray = columns["attack"][rows] != WRONG
        return found
    return columns["robust" if what == AUTOATTACK else "robust_beyond"][rows].astype(bool)


def _classes(joined: Joined, right_a: np.ndarray, right_b: np.ndarray) -> list[ClassDifference]:
    labels, found = joined.a.columns["label"][joined.rows_a], []
    for label in np.unique(labels).tolist():
        these = labels == label
        pair = paired(right_a[these], right_b[these])
        found.append(ClassDifference(_class(joined.a, label), pair.n, pair.a, pair.b, pair.interval))
    return sorted(found, key=lambda c: (-abs(c.b - c.a) / c.n, c.label))


def _only(loser: Records, rows: np.ndarray, what: str) -> Only:
    """``rows`` of ``loser``, which the other gets right."""
    columns = loser.columns
    fooled_by = Counter(_fooled_by(loser, row, what) for row in rows.tolist())
    first = tuple(
        Example(
            int(columns["id"][row]),
            str(columns["name"][row]),
            _class(loser, int(columns["label"][row])),
            _fate(loser, row, what),
        )
        for row in rows[:SHOWN].tolist()
    )
    return Only(len(rows), dict(fooled_by.most_common()), first)


def _fooled_by(records: Records, row: int, what: str) -> str:
    if what == CLEAN:
        return WRONG
    attack = str(records.columns["attack"][row])
    return attack if attack != WITHSTOOD else str(records.columns["attack_beyond"][row])


def _fate(records: Records, row: int, what: str) -> str:
    columns, by = records.columns, _fooled_by(records, row, what)
    if by == WRONG:
        return f"takes it for {_class(records, int(columns['clean'][row]))} as it is"
    if columns["attack"][row] == WITHSTOOD:  # what it takes it for under an attack beyond AutoAttack is not on record
        return f"is fooled by {by}"
    return f"is fooled by {by}, takes it for {_class(records, int(columns['attacked'][row]))}"


def _class(records: Records, label: int) -> str:
    names = records.about["data"]["classes"]
    return str(names[label]) if 0 <= label < len(names) else str(label)


def _sentence(found: Paired, joined: Joined, what: str) -> str:
    one, both = ("gets", "get") if what == CLEAN else ("withstands", "withstand")
    where = " right" if joined.threat is None else f" at {said(joined.threat)}"
    where += ", attacks beyond AutoAttack included" if what == BEYOND else ""
    if found.gained == found.lost:
        told = f"A and B {both} equally many of {found.n} examples{where}"
    else:
        better = "B" if found.gained > found.lost else "A"
        told = f"{better} {one} {abs(found.b - found.a)} more of {found.n} examples{where}"
    low, high = (f"{100 * end:+.1f}" for end in found.interval)
    chance = found.interval[0] <= 0 <= found.interval[1]
    means = "holds 0, so it may be chance" if chance else "leaves out 0"
    return f"{told}; the interval of B - A, [{low}, {high}] points, {means}"

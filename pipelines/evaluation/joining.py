"""Which rows of two evaluations are of the same example at the same threat, and what cannot be joined."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.errors import Misuse
from pipelines.evaluation.radius import written
from pipelines.evaluation.records import Records

Threat = tuple[str, float]


@dataclass(frozen=True)
class Joined:
    """Rows of the same examples in both, by ascending id; ``threat``: None for all of them, each once."""

    a: Records
    b: Records
    rows_a: np.ndarray
    rows_b: np.ndarray
    threat: Threat | None = None

    @property
    def beyond(self) -> bool:
        """Whether both were attacked beyond AutoAttack too."""
        return _beyond(self.a, self.rows_a) and _beyond(self.b, self.rows_b)


def check(a: Records, b: Records) -> None:
    """Errors: ``Misuse`` for evaluations of different data, and for an example whose labels differ."""
    said_a, said_b = a.about["data"], b.about["data"]
    if said_a["digest"] != said_b["digest"]:
        raise Misuse(
            f"{a.path} is of {said_a['name']} {said_a['split']} ({said_a['digest'][:10]}), {b.path} of "
            f"{said_b['name']} {said_b['split']} ({said_b['digest'][:10]}): other images, or others of them; evaluate "
            "both models on the same ones"
        )
    rows_a, rows_b = _common(a, np.arange(len(a)), b, np.arange(len(b)))
    labels_a, labels_b = a.columns["label"][rows_a], b.columns["label"][rows_b]
    wrong = np.flatnonzero(labels_a != labels_b)
    if len(wrong):
        first, row = wrong[0], rows_a[wrong[0]]
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise Misuse(
            f"example {a.columns['id'][row]} ({a.columns['name'][row]}) has label {labels_a[first]} in {a.path}, "
            f"{labels_b[first]} in {b.path}{more}: evaluate both models on the same labels"
        )


def join(a: Records, b: Records) -> list[Joined]:
    """All examples that are in both, each once, then those of each common threat in the order of ``a``.

    Errors: ``Misuse`` for nothing in common.
    """
    found = []
    for threat, rows in a.threats.items():
        if same := _match(b, threat):
            found.append(Joined(a, b, *_common(a, rows, b, b.threats[same]), threat))
    found = [joined for joined in found if len(joined.rows_a)]
    if not found:
        raise Misuse(
            f"{a.path} and {b.path} have nothing in common: {_listed(a)} in the one, {_listed(b)} in the other; "
            "evaluate both models on the same examples at the same threats"
        )
    every_a = np.concatenate([joined.rows_a for joined in found])
    every_b = np.concatenate([joined.rows_b for joined in found])
    return [Joined(a, b, *_common(a, every_a, b, every_b)), *found]


def unmatched(a: Records, b: Records) -> tuple[int, int]:
    """How many examples only ``a`` has, and only ``b``."""
    ids_a, ids_b = a.columns["id"], b.columns["id"]
    return len(np.setdiff1d(ids_a, ids_b)), len(np.setdiff1d(ids_b, ids_a))


def partly(a: Records, b: Records) -> Iterator[str]:
    """What only one of both was attacked with, in words."""
    for one, other, name in ((a, b, "A"), (b, a, "B")):
        if only := [said(threat) for threat in one.threats if _match(other, threat) is None]:
            yield f"only {name} was attacked at {', '.join(only)}"
        for threat, rows in one.threats.items():
            same = _match(other, threat)
            if same and _beyond(one, rows) and not _beyond(other, other.threats[same]):
                yield f"only {name} was attacked beyond AutoAttack at {said(threat)}"


def said(threat: Threat) -> str:
    return f"{threat[0]} {written(threat[1])}"


def _match(records: Records, threat: Threat) -> Threat | None:
    """The same threat there; its eps may be off by the last digit."""
    near = (t for t in records.threats if t[0] == threat[0] and abs(t[1] - threat[1]) <= 1e-9 * threat[1])
    return next(near, None)


def _common(a: Records, rows_a: np.ndarray, b: Records, rows_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose ids are in both, by ascending id, each once."""
    _, first_a, first_b = np.intersect1d(a.columns["id"][rows_a], b.columns["id"][rows_b], return_indices=True)
    return rows_a[first_a], rows_b[first_b]


def _beyond(records: Records, rows: np.ndarray) -> bool:
    return all(value is not None for value in records.columns["robust_beyond"][rows].tolist())


def _listed(records: Records) -> str:
    threats = ", ".join(map(said, records.threats)) or "no threat"
    return f"{len(np.unique(records.columns['id']))} examples at {threats}"

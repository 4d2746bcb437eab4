"""The HTML page of an evaluation: one file, no script, nothing fetched."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.report import classes, curve, picture, tables, verdict, words

CORRUPT_SHOWN = 5


def page(evaluation: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]] = ()) -> str:
    """``evaluation`` is what ``evaluation.json`` holds.

    ``pictures``: per image ``id, label, image`` ``(H, W, C)`` in [0, 1], and ``models``, one or two, each with ``title,
    prediction, gradient`` (of the loss, signed, any scale), ``adversarial`` and ``adversarial_prediction`` (None where
    there is none) and ``distance``.

    All text is escaped, whoever wrote it; what an evaluation does not have leaves no gap.
    """
    return _environment().get_template("page.html").render(
        e=evaluation,
        title=evaluation["model"]["source"],
        pictures=picture.pictures(pictures),
        verdicts=verdict.verdicts(evaluation),
        trust=verdict.trust(evaluation),
        proven=verdict.proven(evaluation),
        corrupt=corrupt(evaluation["data"]),
        attacks=tables.attacks(evaluation),
        curves=curve.curves(evaluation),
        classes=classes.classes(evaluation),
        published=tables.published(evaluation),
        suite_threat=tables.judged(evaluation),
        cost=tables.cost(evaluation),
        reproduction=tables.reproduction(evaluation),
        words=words,
    )  # fmt: skip


def corrupt(data: Mapping[str, Any]) -> str:
    """Images that count as wrong though no wrong class was seen, by name; empty when there are none."""
    told = []
    for names, what in (
        (list(data.get("corrupt") or {}), "could not be read"),
        (list(data.get("non_finite") or []), "got logits that are not finite, as they are or attacked,"),
    ):
        if names:
            some = ", ".join(names[:CORRUPT_SHOWN]) + (", …" if len(names) > CORRUPT_SHOWN else "")
            verb = "is" if len(names) == 1 else "are"
            told.append(f"{words.counted(len(names), 'image')} {what} and {verb} counted as wrong: {some}.")
    return " ".join(told)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipelines.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

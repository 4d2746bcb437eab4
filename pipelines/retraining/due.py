"""Whether there is anything to do: what the champion was made of, against what it would be made of now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import Misuse
from pipelines.tracking.versions import Version

DAY = 86400.0
FIRST, FORCED, DATA, RECIPE, CODE, AGE, FALLEN = "first", "forced", "data", "recipe", "code", "age", "fallen"
SAME = (FORCED, AGE, FALLEN)
"""Reasons to train on what was trained on before: another seed, or it would be the same network."""
MANIFEST = "retrain.manifest"
"""The tag of a version: ``Manifest.digest`` of its data.  With ``recipe_digest`` and ``code_digest``, which a training
leaves, it tells what a version was made of."""
RECIPE_TAG = "retrain.recipe"
"""The recipe as ``retrain`` was told it, where it trained with another seed or a warm start."""


@dataclass(frozen=True)
class Made:
    """What a version is made of, as digests; None where that is not known.  ``since``: seconds since 1970."""

    manifest: str | None
    recipe: str | None
    code: str | None
    since: float = 0.0


@dataclass(frozen=True)
class When:
    """``data``, ``recipe``, ``code``: whether another one is a reason; ``age_days``: the age that is."""

    data: bool
    recipe: bool
    code: bool
    age_days: float | None


@dataclass(frozen=True)
class Reason:
    kind: str
    said: str


def when(node: Mapping[str, Any]) -> When:
    """Errors: ``Misuse`` for a number out of range."""
    if node["age_days"] is not None and node["age_days"] <= 0:
        raise Misuse(f"when.age_days={node['age_days']:g} must be above 0; null: at any age")
    if not 0 <= node["fallen"] < 1:
        raise Misuse(f"when.fallen={node['fallen']:g} must be in [0, 1): a share of the images, such as 0.02")
    return When(node["data"], node["recipe"], node["code"], node["age_days"])


def made(version: Version) -> Made:
    tags = version.tags
    return Made(
        tags.get(MANIFEST),
        tags.get(RECIPE_TAG) or tags.get("recipe_digest"),
        tags.get("code_digest"),
        version.made / 1000,
    )


def reasons(
    champion: Made | None, now: Made, asked: When, fallen: Sequence[str] = (), forced: bool = False
) -> list[Reason]:
    """Every reason to train, none for nothing to do.  Pure."""
    found = [Reason(FORCED, "asked for by --force")] if forced else []
    if champion is None:
        return [*found, Reason(FIRST, "there is no champion")]
    for kind, wanted, there, here in (
        (DATA, asked.data, champion.manifest, now.manifest),
        (RECIPE, asked.recipe, champion.recipe, now.recipe),
        (CODE, asked.code, champion.code, now.code),
    ):
        if wanted and there != here:
            known = (
                f"new {kind}: {(here or '')[:10]}, where the champion's is {there[:10]}"
                if there
                else f"which {kind} the champion comes from is not known"
            )
            found.append(Reason(kind, known))
    age = (now.since - champion.since) / DAY
    if asked.age_days is not None and age > asked.age_days:
        found.append(Reason(AGE, f"the champion is {age:.1f} days old, more than when.age_days={asked.age_days:g}"))
    return [*found, *(Reason(FALLEN, said) for said in fallen)]

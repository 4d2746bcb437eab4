"""Whether the champion has become worse: on fresh images it is right less often than on those that promoted it."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines import compose
from pipelines.errors import Misuse
from pipelines.evaluate import evaluate
from pipelines.evaluation.joining import said
from pipelines.evaluation.prepare import located
from pipelines.promotion import judging
from pipelines.retraining.job import Job
from pipelines.retraining.manifest import Manifest
from pipelines.tracking import holding, versions
from pipelines.tracking.registry import ARTEFACT
from pipelines.tracking.versions import Version
from trainers.evaluation.intervals import difference

JUDGE = ("threats", "attack", "beyond")
KEY, FOUND = "retrain.fresh", "retrain.fallen"
"""Tags of a champion: of what it was last asked this about, and the answer."""
CONFIDENCE = 0.9
"""Of the two-sided interval: of each accuracy, 5 % of champions that have not fallen are said to have."""


def fallen(
    job: Job, champion: Version, judged: Mapping[str, Any], take: Callable[[Mapping[str, Any]], Manifest], ask: bool
) -> list[str] | None:
    """A sentence for each accuracy that fell by more than ``when.fallen``, beyond what chance explains.

    ``when.fresh``: settings of an evaluation, added to the policy's, that say where the fresh images are.  ``take``:
    their manifest.  Asked about the same images again, the answer is the one that the champion carries; None without
    one, if it is not to ``ask``.  Errors: ``Misuse`` for fresh images that would be judged otherwise.
    """
    asked = job.gate()
    lines, margin, uri = (
        [str(line) for line in asked["when"]["fresh"]],
        asked["when"]["fallen"],
        judged["tracking"]["uri"],
    )
    if not lines:
        return []
    node = {**asked["policy"], "evaluation": [*asked["policy"]["evaluation"], *lines]}
    try:
        fresh = judging.judged({**asked, "policy": node, "path": None}, job.recipes)
        seen = take(located(dict(fresh))).digest
    except Misuse as error:
        raise Misuse(f"when.fresh: {str(error).removeprefix('policy.evaluation: ')}") from error
    for name in JUDGE:
        if fresh[name] != judged[name]:
            raise Misuse(f"when.fresh: {name} must be the policy's, or the accuracies cannot be compared; leave it out")
    mark = {
        "artefact": champion.tags.get(ARTEFACT),
        "policy": judged_as(judged),
        "fresh": judged_as(fresh),
        "images": seen,
    }
    key = compose.digest({**mark, "margin": margin})
    if champion.tags.get(KEY) == key:
        return list(json.loads(champion.tags[FOUND]))
    if not ask:
        return None
    model = {**judged["model"], "source": f"models:/{champion.name}/{champion.number}"}
    before, after = (
        evaluate({**each, "model": model}, job.console, debug=job.debug, what=holding.PROMOTE)
        for each in (judged, fresh)
    )
    found = compared(before, after, margin)
    versions.tag(uri, champion.name, champion.number, {FOUND: json.dumps(found), KEY: key})
    return found


def judged_as(config: Mapping[str, Any]) -> str:
    return compose.digest(
        {key: config[key] for key in ("data", "threats", "attack", "beyond", "examples", "seed", "only")}
    )


def compared(before: Mapping[str, Any], after: Mapping[str, Any], margin: float) -> list[str]:
    """Of two evaluations of one model on different images."""
    found = []
    for (name, old), (_, new) in zip(_shares(before), _shares(after), strict=True):
        low, _ = difference(old["right"], old["n"], new["right"], new["n"], CONFIDENCE)
        if low > margin:
            was, now = (f"{each['right'] / each['n']:.3f} of {each['n']:,}" for each in (old, new))
            least = f"by at least {low:.3f}, more than when.fallen={margin:g}"
            found.append(f"{name} fell from {was} to {now} fresh images, {least}")
    return found


def _shares(found: Mapping[str, Any]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    robust = [
        (f"robust accuracy ({said((each['norm'], each['eps']))})", (each["beyond"] or each)["robust"])
        for each in found["threats"]
    ]
    return [("clean accuracy", found["clean"]), *robust]

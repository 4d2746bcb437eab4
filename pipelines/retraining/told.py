"""What came of a look or a retraining, as lines, Markdown and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.outcome import cell
from pipelines.retraining.due import Reason
from pipelines.retraining.manifest import Manifest

NOTHING, ELSEWHERE, BAD_DATA, PROMOTED, REFUSED, FAILED = (
    "nothing",
    "elsewhere",
    "bad data",
    "promoted",
    "refused",
    "failed",
)


def found(outcome: str, model: str, text: str, reasons: Sequence[Reason] = (), **more: Any) -> dict[str, Any]:
    """``text``: one sentence, under the key that chat services show."""
    told = {"outcome": outcome, "model": model, "text": f"{model}: {text}"}
    return {**told, "reasons": [{"kind": each.kind, "said": each.said} for each in reasons], **more}


def data(manifest: Manifest) -> dict[str, Any]:
    """Of a manifest, what a person asks first."""
    images = {split: sum(counts.values()) for split, counts in manifest.images.items()}
    return {"digest": manifest.digest, "files": len(manifest.files), "bytes": manifest.bytes, "images": images}


def markdown(told: Mapping[str, Any], gate: str = "") -> str:
    return "\n".join(_markdown(told, gate)) + "\n"


def _markdown(told: Mapping[str, Any], gate: str) -> Iterator[str]:
    yield f"### {cell(told['text'])}"
    for title, key in (("Why", "reasons"), ("Findings", "findings")):
        if told.get(key):
            yield ""
            yield f"{title}:"
            yield ""
            for each in told[key]:
                yield f"- {cell(each['said'] if key == 'reasons' else each)}"
    if about := told.get("data"):
        images = ", ".join(f"{count:,} {split}" for split, count in about["images"].items())
        yield ""
        size = f"{about['files']:,} files, {about['bytes']:,} bytes"
        yield f"Data: {size}, {images} images; manifest {about['digest'][:10]}."
    if gate:
        yield ""
        yield gate.rstrip()

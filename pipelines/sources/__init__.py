"""From the settings of a model to a network that can be judged, whoever made it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import Misuse, first_line
from pipelines.redact import redact_text
from pipelines.sources import by_name, code, stored
from pipelines.sources.candidate import Candidate, Found, Trust, digest
from pipelines.sources.trial import check_forward
from pipelines.tracking.origin import SCHEMES
from trainers.models import Classifier
from trainers.models.pickles import is_pickle

__all__ = ["Candidate", "digest", "load"]

_OWN = ("name", "weights", "activation", "activation_parameters", "arguments", "mean", "std")
"""Settings that build a network, which a source brings built."""

CHOICES = (
    "models:/NAME/1, models:/NAME@ALIAS, runs:/RUN_ID, a folder that trainers.models.save wrote (s3:// too), or "
    "package.module:function"
)


def load(
    model: Mapping[str, Any],
    classes: int,
    input_size: Sequence[int],
    tracking_uri: str,
    trust: Trust,
    where: str = "model",
) -> Candidate:
    """The network of ``model.source``, or of ``model.name`` and ``model.weights``, tried on two images.

    ``input_size``: (C, H, W).  ``trust``: true, or the packages whose code may run.  ``where``: what the settings are
    called in messages.  Errors: ``Misuse`` naming setting, value and remedy for whatever cannot be judged.
    """
    source = model.get("source")
    if source:
        found = _from(str(source), model, tracking_uri, trust, where)
    else:
        found = by_name.load(model, classes, input_size, trust, where)
    network = _ready(found, found.model, classes, input_size)
    mark = digest(network)
    if found.again and digest(_ready(found, found.again(), classes, input_size)) != mark:
        raise Misuse(
            f"{found.setting} makes other weights at each call, so no number of it could be had again: let it load "
            "its weights, or set torch.manual_seed inside"
        )
    spec = network.spec if isinstance(network, Classifier) else {}
    notes = found.notes
    if spec and list(spec["input_size"]) != list(input_size):
        notes += (f"it was made for {tuple(spec['input_size'])} images and judges {tuple(input_size)}",)
    origin = found.origin
    return Candidate(
        model=network,
        title=found.title,
        source=redact_text(found.source),
        architecture=str(spec.get("name") or type(network).__name__),
        digest=mark,
        parameters=sum(p.numel() for p in network.parameters()),
        run_id=origin.run_id if origin else None,
        version=origin.version if origin else None,
        threat=origin.threat if origin else None,
        stated_clean_accuracy=origin.clean_accuracy if origin else None,
        notes=notes,
    )


def _from(source: str, model: Mapping[str, Any], tracking_uri: str, trust: Trust, where: str) -> Found:
    setting = f"{where}.source={redact_text(source)}"
    if source.endswith(".safetensors"):
        raise Misuse(
            f"{setting} holds tensors and no network: give {where}.name (a timm model) and {where}.weights={source}"
        )
    given = [f"{where}.{key}" for key in _OWN if model.get(key)]
    given += [f"{where}.stem"] if model.get("stem") not in (None, "auto") else []
    if given:
        raise Misuse(
            f"{setting} brings its own network: remove {', '.join(given)}, or, to build one by name, "
            f"{where}.source; normalisation belongs inside the network"
        )
    if source.startswith(SCHEMES):
        return stored.tracked(source, tracking_uri, setting)
    if stored.is_folder(source):
        return stored.folder(source, setting)
    if is_pickle(source):
        return code.pickled(source, setting, trust, where)
    if "://" in source:
        return stored.folder(source, setting)
    if code.is_function(source):
        return code.function(source, setting, trust)
    raise Misuse(f"{setting} is no folder here and names no model; give {CHOICES}")


def _ready(found: Found, network: Any, classes: int, input_size: Sequence[int]) -> Any:
    """``network`` on the CPU in eval mode, found to answer two images with finite logits."""
    try:
        network = network.cpu().eval()
    except Exception as error:
        raise Misuse(
            f"{found.setting} cannot be put on the CPU in eval mode ({first_line(error)}); give the network itself, "
            "not an exported graph of it"
        ) from error
    check_forward(network, classes, input_size, found.setting)
    return network

"""A timm model by name, filled from a file: every weight from it, and the normalisation it was trained with."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import Tensor

from pipelines.errors import Failure, Misuse
from pipelines.redact import redact_text
from pipelines.sources.candidate import Found, Trust
from pipelines.storage import files
from trainers import models
from trainers.models import pickles, weights

_SETTING = re.compile(r"\b(?:model\.(?=name|weights|stem|activation|arguments)|data\.(?=mean|std))")


def load(model: Mapping[str, Any], classes: int, input_size: Sequence[int], trust: Trust, where: str) -> Found:
    """``model.name`` with ``model.weights``; errors: ``Misuse``."""
    name, file = model.get("name"), model.get("weights")
    if not name:
        raise Misuse(f"no model given: set {where}.source, or {where}.name (a timm model) and {where}.weights")
    if not file:
        raise Misuse(
            f"{where}.weights is not set, and {where}.name={name} with random weights judges nothing: give a "
            ".safetensors file, a state dict (.pth), a folder that trainers.models.save wrote, or timm"
        )
    try:
        return _filled(model, name, _expanded(file), classes, list(input_size), trust, where)
    except (Failure, ValueError, OSError) as error:
        raise Misuse(_SETTING.sub(f"{where}.", redact_text(str(error)))) from error


def _filled(
    model: Mapping[str, Any], name: str, file: str, classes: int, size: list[int], trust: Trust, where: str
) -> Found:
    """Unlike for training, a head for other classes is refused: it would be judged with random weights."""
    tensors: dict[str, Tensor] = {}
    notes: tuple[str, ...] = ()
    if file == "timm":
        _check_published(name, classes, where)
    elif pickles.is_pickle(file):
        tensors, key = pickles.read(file, files(file), trust=trust is True)
        notes = (f"{where}.weights={redact_text(file)}: its {key!r} was taken",) if key else ()
    else:
        tensors = weights.read(file, files(file) if "://" in file else None)
    constants, note = _constants(model, name, size[0], tensors, where)
    classifier = models.create(
        name,
        classes,
        size,
        activation=model.get("activation")
        and {"name": model["activation"], **(model.get("activation_parameters") or {})},
        weights="timm" if file == "timm" else None,
        stem=model.get("stem") or "auto",
        arguments=model.get("arguments"),
        **constants,
    )
    if tensors and (dropped := weights.fill(classifier.network, tensors, file)):
        raise Misuse(
            f"{where}.weights={redact_text(file)} is for {len(tensors[dropped[0]])} classes ({', '.join(dropped)}), "
            f"and the data have {classes}: give the data it was made for, or other weights"
        )
    if tensors:
        _check_saved(classifier.spec, file, where)
    setting = f"{where}.name={name} with {where}.weights={redact_text(file)}"
    return Found(classifier, name, f"{name} with {file}", setting, notes=(*notes, note))


def _expanded(file: str) -> str:
    return file if "://" in file or file == "timm" else str(Path(file).expanduser())


def _check_published(name: str, classes: int, where: str) -> None:
    """timm would leave out a head for other classes without a word."""
    cfg = _published(name)
    if timm.is_model(name) and not (cfg and cfg.has_weights):
        raise Misuse(f"{where}.weights=timm: timm has none for {where}.name={name}; give a file of weights")
    if cfg and cfg.num_classes != classes:
        raise Misuse(
            f"{where}.weights=timm: {name} was published for {cfg.num_classes} classes, and the data have {classes}: "
            "give the data it was made for, or weights trained on yours"
        )


def _published(name: str) -> Any:
    with contextlib.suppress(RuntimeError):  # an unknown tag, of which ``create`` says more
        return get_pretrained_cfg(name)
    return None


def _constants(
    model: Mapping[str, Any], name: str, channels: int, tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Any], str]:
    """The normalisation: as set, or the file's own, or timm's; and a note of which it is."""
    mean, std = model.get("mean"), model.get("std")
    cfg = _published(name)
    if (mean is None) != (std is None):
        raise Misuse(f"{where}.mean={mean} and {where}.std={std}: give both or neither")
    if mean is not None and std is not None:
        mean, std, whose = list(mean), list(std), "as set"
    elif "normalize.mean" in tensors:
        mean, std = (tensors[f"normalize.{key}"].flatten().tolist() for key in ("mean", "std"))
        whose = "the saved model's own"
    elif cfg and cfg.mean and cfg.std and channels == 3:
        mean, std, whose = list(cfg.mean), list(cfg.std), f"timm's for {name}"
    else:
        mean, std, whose = [0.0] * channels, [1.0] * channels, "pixels as they are"
    shown = " ".join(f"{key} [{', '.join(f'{v:.4g}' for v in vs)}]" for key, vs in (("mean", mean), ("std", std)))
    return {"mean": mean, "std": std}, f"normalised by {shown}, {whose}; {where}.mean and {where}.std set another"


def _check_saved(spec: Mapping[str, Any], file: str, where: str) -> None:
    """What no tensor shows, as an activation, must be as in the ``model.json`` beside saved weights."""
    folder = file.removesuffix("/weights.safetensors").rstrip("/")
    path = f"{folder}/model.json"
    if folder.endswith(".safetensors") or pickles.is_pickle(file) or not files(path).exists(path):
        return
    with files(path).open(path) as opened:
        saved = json.load(opened).get("spec", {})
    for key in ("name", "activation", "stem"):
        theirs, ours = saved.get(key), spec[key]
        if key == "name":  # its tag names the published weights, not the network
            theirs, ours = str(theirs).partition(".")[0], ours.partition(".")[0]
        if theirs != ours:
            raise Misuse(
                f"{where}.{key}={ours} is not that of the saved model ({theirs}): set {where}.source={folder} in "
                f"place of {where}.name and {where}.weights, which brings everything"
            )

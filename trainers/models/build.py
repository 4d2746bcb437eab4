"""Creating a classifier, and refusing what cannot work before any work starts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from trainers.activations.replace import replace
from trainers.data.files import Files
from trainers.models import hub, stems
from trainers.models import second_order as twice
from trainers.models import weights as initial
from trainers.models.classifier import Classifier, Normalize
from trainers.models.trial import check_forward

_OURS = ("pretrained", "num_classes", "in_chans", "checkpoint_path")


def create(
    name: str,
    num_classes: int,
    input_size: Sequence[int],
    *,
    activation: str | Mapping[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    weights: str | None = None,
    stem: str = "auto",
    second_order: bool = False,
    seed: int = 0,
    arguments: Mapping[str, Any] | None = None,
    files: Files | None = None,
) -> Classifier:
    """A classifier of pixels: any timm model (``holdfast_resnet`` is one) behind its own normalisation.

    ``input_size`` is (C, H, W).  ``activation`` replaces every activation: a name, or ``{"name": ..., **parameters}``.
    ``mean`` and ``std`` have one value a channel; left out, 0 and 1.  ``weights``: None (random, fixed by ``seed``
    without touching torch's generator), ``"timm"`` (downloaded), a ``.safetensors`` file or a directory written by
    ``save``, both local or, opened by ``files``, remote; a head for another number of classes is left out.
    ``stem``: ``"small"`` keeps the resolution at the entrance, ``"auto"`` does so up to 32 pixels.  ``second_order``
    makes the network fit for a gradient penalty (no fused attention, nothing in place) and tries it.  ``arguments``
    go to the timm model (``width``, ``blocks``, ``drop_path_rate`` ...).

    Nothing is hidden about BatchNorm: it uses batch statistics in train mode and running ones in eval mode, and which
    mode the network trains in is the objective's ``mode``.  The classifier comes in train mode, on the CPU.

    Errors: ``ValueError`` naming setting, value and remedy.
    """
    with seeded(seed):
        classifier = assemble(
            name=name,
            num_classes=num_classes,
            input_size=input_size,
            activation=activation,
            mean=mean,
            std=std,
            stem=stem,
            second_order=second_order,
            arguments=arguments,
            pretrained=weights == "timm",
        )
        if weights not in (None, "timm"):
            initial.fill(classifier.network, initial.read(weights, files), weights)
        check_forward(classifier, asked=stem)
        if second_order:
            twice.check_second_order(classifier, classifier.spec["input_size"])
    return classifier


def assemble(
    name: str,
    num_classes: int,
    input_size: Sequence[int],
    activation: str | Mapping[str, Any] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    stem: str,
    second_order: bool,
    arguments: Mapping[str, Any] | None,
    pretrained: bool = False,
) -> Classifier:
    """As ``create``, but untried, and with the weights timm draws (or downloads)."""
    channels, height, width = _checked_size(input_size, num_classes)
    constants = _constants(channels, mean, std)
    _check_name(name, pretrained)
    if pretrained:
        hub.check(name)
    small = stems.wanted(stem, (height, width))
    given = stems.patches(name, (height, width), small) | dict(arguments or {})
    with twice.unfused() if second_order else nullcontext():
        network = _timm(name, pretrained, num_classes, channels, given)
    if small and "patch_size" not in given and not stems.shrink(network, pretrained):
        if stem == "small":
            raise ValueError(f"model.stem=small is not known for model.name={name!r}; take model.stem=standard")
        small = False
    chosen = {"name": activation} if isinstance(activation, str) else dict(activation) if activation else None
    if chosen is not None:
        if "name" not in chosen:
            raise ValueError(f"model.activation={chosen} has no name: give it one, such as name=gelu")
        replace(network, **chosen)
    if second_order:
        twice.prepare(network)
    spec = {
        "name": name,
        "num_classes": num_classes,
        "input_size": [channels, height, width],
        "activation": chosen,
        **constants,
        "stem": "small" if small else "standard",
        "second_order": second_order,
        "arguments": given,
    }
    return Classifier(Normalize(**constants), network, spec)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's CPU generator at ``seed`` inside and as it was afterwards; CUDA generators are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _checked_size(input_size: Sequence[int], num_classes: int) -> tuple[int, int, int]:
    if len(input_size) != 3 or min(input_size) < 1:
        raise ValueError(f"data.input_size={list(input_size)} must be (channels, height, width), each 1 or more")
    if num_classes < 1:
        raise ValueError(f"data.source.class_names gives {num_classes} classes: there must be 1 or more")
    channels, height, width = (int(n) for n in input_size)
    return channels, height, width


def _constants(channels: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, list[float]]:
    """``mean`` and ``std``, one value a channel."""
    constants = {
        "mean": [0.0] * channels if mean is None else [float(v) for v in mean],
        "std": [1.0] * channels if std is None else [float(v) for v in std],
    }
    for key, values in constants.items():
        if len(values) != channels:
            raise ValueError(f"data.{key}={values} must have {channels} values, one a channel of data.input_size")
    if min(constants["std"]) <= 0:
        raise ValueError(f"data.std={constants['std']} must be above 0, in units of pixels in [0, 1]")
    return constants


def _check_name(name: str, pretrained: bool) -> None:
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        hint = f"nearest: {', '.join(near)}" if near else "timm.list_models() lists what there is"
        raise ValueError(f"model.name={name!r} is not a timm model; {hint}")
    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_models(name.partition(".")[0], pretrained=True)
        near = get_close_matches(name, tags, n=3) or tags[:3]
        raise ValueError(f"model.name={name!r} has an unknown tag; nearest: {', '.join(near)}") from error
    if pretrained and not (cfg and cfg.has_weights):
        raise ValueError(f"model.weights='timm': timm has none for model.name={name!r}; leave model.weights empty")


def _timm(name: str, pretrained: bool, num_classes: int, channels: int, arguments: dict[str, Any]) -> nn.Module:
    for key in _OURS:
        if key in arguments:
            raise ValueError(f"model.arguments.{key}={arguments[key]!r} follows from data and weights; remove it")
    try:
        return timm.create_model(name, pretrained, num_classes=num_classes, in_chans=channels, **arguments)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if pretrained:
            raise ValueError(
                f"model.weights='timm': the weights of {name!r} could not be fetched and loaded ({reason}); "
                "where the hub cannot be reached, set model.weights to a local copy of the model.safetensors"
            ) from error
        raise ValueError(
            f"model.name={name!r} cannot be built with model.arguments={arguments} ({reason}); "
            "check model.arguments and model.stem, or choose larger images or another model"
        ) from error

"""The artefact that the registry serves: fetched anew, weighed against its digest, tried against its network."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines import sources
from pipelines.errors import Failure, Misuse, first_line
from pipelines.redact import redact_text
from pipelines.tracking import export, registry, versions

NOT_LOADED = "not loaded: its files are not those registered"


@dataclass(frozen=True)
class Artefact:
    """``registered``: the digest the registry keeps, None if it keeps none; ``digest``: of the files as they are;
    ``network``: of the network inside.  ``takes``, ``judged``: what the signature takes, the images of the judgement.
    ``difference``: of logits and input gradients, between the graph that is served and the network, of their largest;
    ``problem``: why that could not be found."""

    registered: str | None
    digest: str
    network: str
    takes: str
    judged: tuple[int, ...]
    difference: float
    problem: str = ""


def inspect(uri: str, name: str, version: int, x: Tensor) -> Artefact:
    """``x``: pixels to try it on.  Files that are not those registered are not loaded.

    Errors: ``Misuse`` for a version without artefact, and one that does not load; ``Failure`` as ``versions.fetch``."""
    registered = versions.find(uri, name, version).tags.get(registry.ARTEFACT) or None
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        place = versions.fetch(uri, name, version, Path(folder))
        digest, judged = export.digest(place), tuple(x.shape[1:])
        if digest != registered:
            return Artefact(registered, digest, "", NOT_LOADED, judged, float("nan"), NOT_LOADED)
        network = _network(place, name, version)
        difference, problem = _difference(place, network, x)
        return Artefact(registered, digest, sources.digest(network), _takes(place), judged, difference, problem)


def check(uri: str, name: str, version: int) -> None:
    """In a hurry: it is what was registered, and its network loads.  Errors: as ``inspect``, and ``Misuse``."""
    registered = versions.find(uri, name, version).tags.get(registry.ARTEFACT) or None
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        place = versions.fetch(uri, name, version, Path(folder))
        digest = export.digest(place)
        if digest != registered:
            was = f"registered with {registered[:12]}" if registered else "registered without one"
            raise Misuse(
                f"models:/{name}/{version} is not what was registered (its digest is {digest[:12]}, {was}); give "
                "another version=NUMBER"
            )
        _network(place, name, version)


def _difference(place: Path, network: nn.Module, x: Tensor) -> tuple[float, str]:
    """Between the graph and the network; or why there is none."""
    graph, problem = _graph(place)
    if graph is None:
        return float("nan"), problem
    try:
        gaps = torch.tensor([_apart(a, b) for a, b in zip(_seen(graph, x), _seen(network, x), strict=True)])
        return float(gaps.max()), ""  # the largest of tensors is NaN where one is, which Python's max may lose
    except Exception as error:  # a graph fails in as many ways as there are networks
        return float("nan"), f"it fails: {first_line(error)}"


def unchanged(uri: str, name: str, version: int, digest: str) -> bool:
    """Whether the files are those of ``digest`` still."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        return export.digest(versions.fetch(uri, name, version, Path(folder))) == digest


def _network(place: Path, name: str, version: int) -> nn.Module:
    try:
        return registry.load(str(place)).cpu().eval()
    except (Failure, Misuse, ValueError, OSError) as error:
        raise Misuse(
            f"models:/{name}/{version} cannot be loaded ({redact_text(first_line(error))}); give its files back, "
            "or train it under another name="
        ) from error


def _graph(place: Path) -> tuple[Any, str]:
    import mlflow.pytorch

    variable = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"  # an artefact of somebody else's might ask for it
    before = os.environ.get(variable)
    os.environ[variable] = "false"
    try:
        with export.quiet():
            return mlflow.pytorch.load_model(str(place)), ""
    except Exception as error:
        return None, f"it cannot be loaded: {redact_text(first_line(error))}"
    finally:
        os.environ.pop(variable, None) if before is None else os.environ.update({variable: before})


def _seen(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the input gradient of each image's largest."""
    x = x.detach().clone().requires_grad_(True)
    logits = model(x)
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), x)
    return logits.detach(), gradient


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


def _takes(place: Path) -> str:
    """``float32 pixels (1, 8, 8) in [0, 1]``, by the signature that serving holds callers to."""
    from mlflow.models import Model

    described = Model.load(str(place))
    inputs = described.signature.inputs.inputs if described.signature else []
    if len(inputs) != 1 or not re.search("pixels", str(inputs[0].name)):
        return "no pixels, by its signature"
    shape: Sequence[int] = tuple(inputs[0].shape)
    free = shape[0] == -1
    return f"{inputs[0].type.name} pixels {tuple(shape[1:])} in [0, 1]" + ("" if free else f", {shape[0]} at a time")

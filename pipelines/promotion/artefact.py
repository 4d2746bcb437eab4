"""The artefact that the registry serves: fetched anew, weighed against its digest, tried against its network."""

import tempfile
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
        return Artefact(registered, digest, sources.digest(network), export.takes(place), judged, difference, problem)


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
    graph, problem = export.served(place)
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


def _seen(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the input gradient of each image's largest."""
    x = x.detach().clone().requires_grad_(True)
    logits = model(x)
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), x)
    return logits.detach(), gradient


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))

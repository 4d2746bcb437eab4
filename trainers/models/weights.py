"""Initial weights from a safetensors file or a saved model, with every tensor accounted for."""

import sys

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trainers.activations.smooth import SmoothReLU
from trainers.data.files import Files, LocalFiles
from trainers.models import pickles


def read(weights: str, files: Files | None = None) -> dict[str, Tensor]:
    """The tensors of ``weights``: a ``.safetensors`` file, or a directory written by ``trainers.models.save``.

    A path with ``://`` is opened by ``files``; what a wrapper put before every name is taken off.
    Errors: ``ValueError`` for a pickle (``pickles.read`` is for these), a missing or a broken file.
    """
    if pickles.is_pickle(weights):
        raise ValueError(
            f"model.weights={weights!r} is a pickle, which may run code when it is read; convert it once: "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')"
        )
    path = weights if weights.endswith(".safetensors") else weights.rstrip("/") + "/weights.safetensors"
    source = files if "://" in path else LocalFiles()
    if source is None:
        raise ValueError(f"model.weights={weights!r} is remote: pass `files` to open it, or give a local path")
    try:
        with source.open(path) as file:
            return pickles.peeled(safetensors.torch.load(file.read()))
    except FileNotFoundError as error:
        raise ValueError(
            f"model.weights={weights!r}: there is no {path}; give a .safetensors file, a directory written by "
            "trainers.models.save, or 'timm'"
        ) from error
    except SafetensorError as error:
        raise ValueError(
            f"model.weights={weights!r} is truncated or not safetensors ({error}); copy it anew"
        ) from error


def fill(network: nn.Module, tensors: dict[str, Tensor], weights: str) -> list[str]:
    """Load ``tensors`` into ``network``; return the names of the dropped head's tensors.

    Only two differences are let pass: a classification head for another number of classes keeps its random weights,
    and an activation that ``replace`` put in keeps its initial parameters.  timm's own layouts are translated.

    Errors: ``ValueError`` naming the tensors for any other mismatch.
    """
    if "normalize.mean" in tensors:
        tensors = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    problems = _mismatches(network, tensors)
    if problems:
        tensors = _translated(network, tensors)
        problems = _mismatches(network, tensors)
    if problems:
        listed = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(
            f"model.weights={weights!r} does not fit model.name: {listed}; give weights of the same model.name, "
            "model.arguments, model.stem and input size"
        )
    dropped = [name for name, t in tensors.items() if _other_head(network, name, t)]
    network.load_state_dict({name: t for name, t in tensors.items() if name not in dropped}, strict=False)
    return dropped


def _mismatches(network: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """One line for every tensor that is missing, unexpected, or of another shape."""
    own = network.state_dict()
    learned = {f"{name}.raw" for name, module in network.named_modules() if isinstance(module, SmoothReLU)}
    missing = [f"{name} is missing" for name in own if name not in tensors and name not in learned]
    unexpected = [f"{name} is unexpected" for name in tensors if name not in own]
    shapes = [
        f"{name} is {tuple(t.shape)} and should be {tuple(own[name].shape)}"
        for name, t in tensors.items()
        if name in own and t.shape != own[name].shape and not _other_head(network, name, t)
    ]
    return shapes + missing + unexpected


def _other_head(network: nn.Module, name: str, tensor: Tensor) -> bool:
    """Whether ``tensor`` belongs to a classification head that differs in the number of classes only."""
    heads = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    if name.rpartition(".")[0] not in heads:
        return False
    own = network.state_dict()[name].shape
    return tensor.shape[1:] == own[1:] and tensor.shape[0] != own[0]


def _translated(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """By timm's own rule for the family: older names, position tables and patches resampled to another size."""
    rule = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if rule is None:
        return tensors
    try:
        return rule(dict(tensors), network)
    except Exception:  # not a layout timm knows: the mismatches of the file as it is say more than timm's error
        return tensors

"""A trained model on disk: ``model.json`` says how to build it, ``weights.safetensors`` what it learned."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from trainers.models.build import assemble, seeded
from trainers.models.classifier import Classifier

FORMAT = 1
_SPEC = {"name", "num_classes", "input_size", "activation", "mean", "std", "stem", "second_order", "arguments"}


def save(model: nn.Module, directory: str | os.PathLike[str]) -> None:
    """Write ``model.json`` and ``weights.safetensors``, each whole or not at all, the weights first.

    ``model.json`` holds the weights' SHA-256, so a pair torn apart by a crash is noticed when loading.
    Errors: ``ValueError`` for a model that did not come from ``create`` or ``load``; ``OSError`` when the disk is full.
    """
    if not isinstance(model, Classifier):
        raise ValueError(
            f"a {type(model).__name__} cannot be saved: it does not know how to be rebuilt; "
            "save the classifier that trainers.models.create gave, without a wrapper"
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in model.state_dict().items()}
    weights = directory / "weights.safetensors"
    _atomically(weights, lambda path: safetensors.torch.save_file(tensors, path))
    text = json.dumps({"format": FORMAT, "spec": model.spec, "weights_sha256": _digest(weights)}, indent=2)
    _atomically(directory / "model.json", lambda path: path.write_text(text + "\n"))


def load(directory: str | os.PathLike[str]) -> Classifier:
    """The model ``save`` wrote, in eval mode on the CPU: the same logits to the bit.

    Errors: ``ValueError`` for missing, truncated or mismatched files and for a spec this version does not know.
    """
    directory = Path(directory)
    written = _read_json(directory / "model.json")
    weights = directory / "weights.safetensors"
    if not weights.exists():
        raise ValueError(f"{directory} has no weights.safetensors; copy the whole directory that was saved")
    if _digest(weights) != written["weights_sha256"]:
        raise ValueError(f"{weights} is truncated or belongs to another model.json; copy the whole directory anew")
    with seeded(0):  # the weights drawn here are overwritten; the caller's random numbers go on undisturbed
        classifier = assemble(**written["spec"])
    try:
        tensors = safetensors.torch.load_file(weights)
        classifier.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{weights} does not fit its model.json ({error}); was it saved under another timm?"
        ) from error
    return classifier.eval()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        written = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; give a directory written by trainers.models.save") from error
    except ValueError as error:
        raise ValueError(f"{path} is truncated or not JSON ({error}); copy the whole directory anew") from error
    if not isinstance(written, dict) or written.get("format") != FORMAT:
        raise ValueError(f"{path} is not a model of format {FORMAT}; read it with the version that wrote it")
    for part in ("spec", "weights_sha256"):
        if part not in written:
            raise ValueError(f"{path} is incomplete: no {part}; copy the whole directory anew")
    keys = set(written["spec"])
    for kind, names in (("unknown", keys - _SPEC), ("missing", _SPEC - keys)):
        if names:
            raise ValueError(f"{path}: {kind} spec keys {sorted(names)}; read it with the version that wrote it")
    return written


def _atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside ``path``, flush to the disk, then put it in place; on failure what was there stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{path} could not be written ({error}); free space or choose another directory") from error
    finally:
        temporary.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Tensors and JSON in one safetensors file: whole or not at all, checked when read, no pickle."""

import errno
import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = 1
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StateError(ValueError):
    """A file that this run cannot continue from."""


class Damaged(StateError):
    """A file that nothing can be read from."""


def write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """``tensors`` and ``about`` (JSON) in ``path``, whole or not at all.

    Errors: ``OSError`` naming the path and the bytes needed; the file that was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors, text = _separate(tensors), json.dumps(about)
    metadata = {"holdfast_format": str(FORMAT), "about": text, "crc32": str(_crc32(tensors, text))}
    needed = sum(t.nbytes for t in tensors.values())
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if shutil.disk_usage(path.parent).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_file(tensors, partial, metadata)
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        code = _errno(error)
        remedy = "free some space there, or set another place to save to" if code in _FULL else "check path and rights"
        kept = "; the state saved there before is untouched" if path.exists() else ""
        raise OSError(
            code, f"could not save the state ({needed:,} bytes needed) to {path}: {os.strerror(code)}; {remedy}{kept}"
        ) from error


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``(about, tensors)``.  Errors: ``StateError`` for a file that is not there, not ours, or not whole."""
    if not path.is_file():
        raise StateError(f"{path} does not exist: there is no state to continue from")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, UnicodeDecodeError) as error:
        raise Damaged(_damaged(path, str(error))) from error
    if "holdfast_format" not in metadata:
        raise StateError(f"{path} is a safetensors file, but not a state saved by Holdfast; name another")
    if metadata["holdfast_format"] != str(FORMAT):
        raise StateError(
            f"{path} has state format {metadata['holdfast_format']}, this version reads {FORMAT}: "
            "continue it with the version that saved it"
        )
    text = metadata.get("about", "")
    if metadata.get("crc32") != str(_crc32(tensors, text)):
        raise Damaged(_damaged(path, "its checksum does not match"))
    return json.loads(text), tensors


def flatten(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``tree`` as JSON, its tensors moved into ``tensors``: any optimizer's state without pickle."""
    if isinstance(tree, Tensor):
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, dict):
        return {"dict": [[key, flatten(value, f"{name}/{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [flatten(value, f"{name}/{i}", tensors) for i, value in enumerate(tree)]}
    return tree


def unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree that ``flatten`` took apart."""
    if not isinstance(tree, dict):
        return tree
    ((kind, inner),) = tree.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: unflatten(value, tensors) for key, value in inner}
    values = [unflatten(value, tensors) for value in inner]
    return tuple(values) if kind == "tuple" else values


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in one memory (tied weights), as the format wants."""
    separate, seen = {}, set()
    for name, tensor in sorted(tensors.items()):
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate


def _crc32(tensors: dict[str, Tensor], text: str) -> int:
    """Over ``text``, and all names and bytes in the order of the names: the format would not notice a flipped bit."""
    crc = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), crc))
    return crc


def _errno(error: OSError | SafetensorError) -> int:
    """safetensors tells the operating system's error in its text only."""
    told = re.search(r"os error (\d+)", str(error))
    return getattr(error, "errno", None) or (int(told[1]) if told else errno.EIO)


def _sync(path: Path) -> None:
    """Reach the disk: of a directory, so that the rename does."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is truncated or corrupt ({reason}): remove it, and continue from an older state or from the start"

"""What torch.save wrote, read without running what is in it."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.data.files import Files, LocalFiles

SUFFIXES = {".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl"}

_KEYS = ("state_dict", "model", "model_state_dict", "ema", "state_dict_ema", "model_ema")
"""Where training scripts put the weights in a checkpoint; the first that is there is taken."""
_WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel, DDP, AveragedModel and torch.compile put before every name."""
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def is_pickle(path: str) -> bool:
    return Path(path).suffix in SUFFIXES


def read(path: str, files: Files | None = None, trust: bool = False) -> tuple[dict[str, Tensor], str]:
    """``(tensors, key)``: the state dict in ``path``, and the key it stood under ("" if it is the whole file).

    Prefixes of wrappers are taken off.  Errors: ``ValueError`` as for ``load``, and where no state dict is found.
    """
    found = load(path, files, trust)
    if _is_state(found):
        return peeled(found), ""
    if isinstance(found, Mapping):
        for key in _KEYS:
            if _is_state(found.get(key)):
                return peeled(found[key]), key
    held = type(found).__name__
    if isinstance(found, Mapping):
        held += f" with the keys {', '.join(map(str, list(found)[:8])) or '(none)'}"
    raise ValueError(
        f"model.weights={path!r} holds no state dict but {held}; save the network's state_dict(), alone or under "
        f"one of {', '.join(_KEYS)}"
    )


def load(path: str, files: Files | None = None, trust: bool = False, setting: str = "model.weights") -> Any:
    """The object in ``path``, its tensors on the CPU: plain values and tensors only, or, with ``trust``, anything.

    Errors: ``ValueError`` naming ``setting`` for what needs code to be read, a missing or a broken file.
    """
    try:
        opened = (files or LocalFiles()).open(path)
    except FileNotFoundError as error:
        raise ValueError(f"{setting}={path!r}: there is no such file; correct the path") from error
    with opened as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about TorchScript, which is trusted here or refused below
        try:
            return torch.load(file, map_location="cpu", weights_only=not trust)
        except Exception as error:
            raise ValueError(f"{setting}={path!r} {_reason(error, trust)}") from error


def peeled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` without the prefixes that every name has from a wrapper."""
    peeled = dict(tensors)
    while prefix := next((p for p in _WRAPPERS if _all_begin(peeled, p)), None):
        peeled = {n.removeprefix(prefix): t for n, t in peeled.items() if n.startswith(prefix)}
    return peeled


def _all_begin(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    names = [name for name in tensors if name != "n_averaged"]  # the counter of AveragedModel
    return bool(names) and all(name.startswith(prefix) for name in names)


def _is_state(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and bool(found)
        and all(isinstance(name, str) and isinstance(t, Tensor) for name, t in found.items())
    )


def _reason(error: Exception, trust: bool) -> str:
    text = str(error).strip()
    first = text.splitlines()[0][:200] if text else type(error).__name__
    if trust:
        return f"cannot be unpickled ({first}); run where its classes can be imported, or copy the file anew"
    needed = _GLOBAL.search(text)
    if needed or "TorchScript" in text:
        what = needed[1] if needed else "a TorchScript program"
        return (
            f"is a pickle that needs {what} to be read, which runs code; if you trust it, add trust=true, or convert "
            "it once: safetensors.torch.save_file(network.state_dict(), 'weights.safetensors')"
        )
    return f"is truncated, or no file of torch.save ({first[:120]}); copy it anew"

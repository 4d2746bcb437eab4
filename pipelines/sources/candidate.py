"""A network to be judged, and what is known of it."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipelines.tracking.origin import Origin

Trust = bool | Sequence[str]
"""Whose code may run: true for anybody's, or packages by name."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class Candidate:
    """``model``: on the CPU, in eval mode, pixels (N, C, H, W) in [0, 1] to logits (N, K).  ``source``: as it was
    given, without credentials.  ``threat``: norm and eps that its training was judged at, as its run's tag rounds
    them (6 digits).  ``notes``: what was decided for the user, to be printed."""

    model: nn.Module
    title: str
    source: str
    architecture: str
    digest: str
    parameters: int
    run_id: str | None = None
    version: tuple[str, int] | None = None
    threat: tuple[str, float] | None = None
    stated_clean_accuracy: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A network as a source gives it, untried.  ``setting``: what messages call it, such as ``model.source=x:y``.
    ``again`` makes it once more, where two may differ."""

    model: nn.Module
    title: str
    source: str
    setting: str
    origin: Origin | None = None
    notes: tuple[str, ...] = ()
    again: Callable[[], nn.Module] | None = None


def trusts(trust: Trust, package: str) -> bool:
    return trust is True or (not isinstance(trust, bool) and package in ((trust,) if isinstance(trust, str) else trust))


def digest(model: nn.Module) -> str:
    """SHA-256 over the module tree as torch prints it, and name, dtype, shape and bytes of every parameter and buffer.

    Two networks of the same tensors whose ``forward`` differs in a way their ``repr`` does not show have the same.
    """
    sha = hashlib.sha256(_ADDRESS.sub("", repr(model)).encode())
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()

"""Everything a run needs to continue, and one file to hold it."""

import errno
import json
import os
import re
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

FORMAT = 1
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_COUNTERS = ("step", "epoch", "step_in_epoch", "best_probe", "good_step", "good_epoch", "ended")


class StateError(ValueError):
    """A file that this run cannot continue from."""


@dataclass
class State:
    """A run, between two steps.

    ``step``: optimizer steps done; ``epoch``: epochs finished; ``step_in_epoch``: steps done of the one under way;
    ``config_digest``: names the config, so that no run continues from another's file; ``ended``: why the run is
    over, empty while it is not.  ``best_probe``, ``good`` and its counters are the memory of the alarm.

    No random state is kept: every draw is keyed by seed, epoch and example, or seeded anew in each step.

    ``ema`` is timm's ``ModelEmaV3`` with its warm-up (``1 - (1 + step)^(-2/3)``, up to ``decay``), because without
    one the average of a short run is mostly its initial weights, and because it updates all tensors in one call and
    averages BatchNorm's statistics with the weights, as its statistics must belong to them.
    """

    model: nn.Module
    optimizer: Optimizer
    ema: ModelEmaV3 | None = None
    config_digest: str = ""
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best_probe: float | None = None
    good: dict[str, Tensor] = field(default_factory=dict)
    good_step: int = 0
    good_epoch: int = 0
    ended: str = ""

    @classmethod
    def create(
        cls, model: nn.Module, optimizer: Optimizer, ema_decay: float | None = None, config_digest: str = ""
    ) -> Self:
        """At step 0.  ``ema_decay`` in (0, 1), or none for no average."""
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ValueError(f"ema={ema_decay:g} must be in (0, 1), or null for no average")
        ema = None if ema_decay is None else ModelEmaV3(model, decay=ema_decay, use_warmup=True)
        return cls(model, optimizer, ema, config_digest)

    @property
    def network(self) -> nn.Module:
        """The network to evaluate and to ship: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def weights(self) -> dict[str, Tensor]:
        """Every parameter and buffer of the model and of its average, by name."""
        modules = {"model": self.model} | ({} if self.ema is None else {"ema": self.ema.module})
        return {f"{prefix}/{name}": t for prefix, m in modules.items() for name, t in m.state_dict().items()}

    @torch.no_grad()
    def set_weights(self, saved: dict[str, Tensor]) -> None:
        for name, tensor in self.weights().items():
            tensor.copy_(saved[name])

    def remember(self) -> None:
        """Keep this moment's weights, on the CPU, as the last good ones."""
        self.good = {name: t.detach().to("cpu", copy=True) for name, t in self.weights().items()}
        self.good_step, self.good_epoch = self.step, self.epoch

    def recall(self) -> None:
        """Go back to the last good weights."""
        self.set_weights(self.good)
        self.step, self.epoch, self.step_in_epoch = self.good_step, self.good_epoch, 0


def save(state: State, path: str | Path) -> None:
    """One safetensors file, whole or not at all: written beside ``path``, synced, then renamed over it.

    Errors: ``OSError`` naming the path and the bytes needed; the file that was there stays.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    optimizer = _flatten(state.optimizer.state_dict(), "optimizer", tensors)
    tensors |= state.weights() | {f"good/{name}": t for name, t in state.good.items()}
    tensors = _separate(tensors)
    about = {name: getattr(state, name) for name in _COUNTERS} | {
        "format": FORMAT,
        "config_digest": state.config_digest,
        "optimizer": optimizer,
        "crc32": _crc32(tensors),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, tensors, {"holdfast": json.dumps(about)})


def load(state: State, path: str | Path) -> None:
    """Continue ``state`` from ``path``: every rank loads the same file.  A file that is refused changes nothing.

    Errors: ``StateError`` for a truncated or corrupt file, one of another format, and one of another config.
    """
    about, tensors = _read(Path(path))
    if about["config_digest"] != state.config_digest:
        raise StateError(
            f"{path} was saved by another config: its config_digest is {about['config_digest']!r}, this run's is "
            f"{state.config_digest!r}. Continue it with the config it was saved by, or start a new run elsewhere"
        )
    expected = {name: t.shape for name, t in state.weights().items()}
    found = {name: t.shape for name, t in tensors.items() if name.startswith(("model/", "ema/"))}
    if expected != found:
        names = sorted(n for n in expected | found if expected.get(n) != found.get(n))
        raise StateError(
            f"{path} holds another network: {len(names)} weights differ in name or shape, first {names[0]!r}; "
            "build the model (and its average) as it was when the file was saved"
        )
    state.optimizer.load_state_dict(_unflatten(about["optimizer"], tensors))
    match_layout(state.optimizer)
    state.set_weights(tensors)
    state.good = {name.removeprefix("good/"): t for name, t in tensors.items() if name.startswith("good/")}
    for name in _COUNTERS:
        setattr(state, name, about[name])


def match_layout(optimizer: Optimizer) -> None:
    """Give each moment its parameter's memory layout, without which the fused updates fall back to slow ones."""
    for p, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == p.shape and moment.stride() != p.stride():
                moments[name] = torch.empty_like(p, dtype=moment.dtype).copy_(moment)


def _flatten(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``tree`` as JSON, its tensors moved into ``tensors``: any optimizer's state without pickle."""
    if isinstance(tree, Tensor):
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, dict):
        return {"dict": [[key, _flatten(value, f"{name}/{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [_flatten(value, f"{name}/{i}", tensors) for i, value in enumerate(tree)]}
    return tree


def _unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, inner),) = tree.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: _unflatten(value, tensors) for key, value in inner}
    values = [_unflatten(value, tensors) for value in inner]
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


def _crc32(tensors: dict[str, Tensor]) -> int:
    """Over all bytes in the order of the names: the format itself would not notice a flipped one."""
    crc = 0
    for _, tensor in sorted(tensors.items()):
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    needed = sum(t.nbytes for t in tensors.values())
    partial = path.with_name(f".{path.name}.partial")
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


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise StateError(f"{path} does not exist: there is no state to continue from")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("holdfast", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StateError(_damaged(path, str(error))) from error
    if about is None:
        raise StateError(f"{path} is a safetensors file, but not a state saved by Holdfast; name another")
    if about["format"] != FORMAT:
        raise StateError(
            f"{path} has state format {about['format']}, this version reads {FORMAT}: "
            "continue it with the version that saved it"
        )
    if about["crc32"] != _crc32(tensors):
        raise StateError(_damaged(path, "its checksum does not match"))
    return about, tensors


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is truncated or corrupt ({reason}): remove it, and continue from an older state or from the start"

"""Everything a run needs to continue, and one file to hold it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from trainers.state_file import Damaged, StateError, flatten, read, unflatten, write

__all__ = ["Damaged", "State", "StateError", "load", "match_layout", "save"]

_COUNTERS = ("step", "trained", "epoch", "step_in_epoch", "best_probe", "good_step", "good_epoch", "ended")


@dataclass
class State:
    """A run, between two steps.

    ``step``: optimizer steps done; ``trained``: the same, with those that ``recall`` took back; ``epoch``: epochs
    finished; ``step_in_epoch``: steps done of the one under way; ``config_digest``: names the config, so that no run
    continues from another's file; ``ended``: why the run is over, empty while it is not.  ``best_probe``, ``good`` and
    its counters are the memory of the alarm.

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
    trained: int = 0
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
    tensors: dict[str, Tensor] = {}
    optimizer = flatten(state.optimizer.state_dict(), "optimizer", tensors)
    tensors |= state.weights() | {f"good/{name}": t for name, t in state.good.items()}
    counters = {name: getattr(state, name) for name in _COUNTERS}
    write(Path(path), tensors, {**counters, "config_digest": state.config_digest, "optimizer": optimizer})


def load(state: State, path: str | Path) -> None:
    """Continue ``state`` from ``path``: every rank loads the same file.  A file that is refused changes nothing.

    Errors: ``StateError`` for a truncated or corrupt file, one of another format, and one of another config.
    """
    about, tensors = read(Path(path))
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
    state.optimizer.load_state_dict(unflatten(about["optimizer"], tensors))
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

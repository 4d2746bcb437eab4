"""The optimizer's parameter groups and its learning rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Cosine:
    """Learning rate at a fractional epoch ``t`` of ``T``: linear warm-up over ``W`` epochs, then half a cosine.

    ``t < W: warmup_lr + (lr - warmup_lr) · t/W``, else ``min_lr + (lr - min_lr) · (1 + cos(π (t - W)/(T - W)))/2``.
    A pure function, so a resumed run needs nothing saved.  Source: Loshchilov and Hutter 2017 (1608.03983), one
    cycle; the warm-up of Goyal et al. 2017 (1706.02677).  Where we differ from timm: the cosine begins after the
    warm-up and not under it.
    """

    lr: float
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.lr < math.inf):
            raise ValueError(f"optimizer.lr={self.lr:g} must be above 0")
        for name in ("warmup_epochs", "warmup_lr", "min_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"schedule.{name}={getattr(self, name):g} must not be negative")
        if self.min_lr > self.lr:
            raise ValueError(f"schedule.min_lr={self.min_lr:g} is above optimizer.lr={self.lr:g}: swap them")

    def __call__(self, epoch: float, epochs: float) -> float:
        if epoch < self.warmup_epochs:
            return self.warmup_lr + (self.lr - self.warmup_lr) * epoch / self.warmup_epochs
        done = min((epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-12), 1.0)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * done)) / 2


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: weights, which decay, and all the rest, which does not.

    The rest is biases, norms and other parameters of at most one axis (the slopes of learnable activations), and
    what a timm model names in ``no_weight_decay()`` (class tokens, position embeddings).
    """
    if weight_decay < 0:
        raise ValueError(f"optimizer.weight_decay={weight_decay:g} must not be negative")
    exempt = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if callable(getattr(module, "no_weight_decay", None))
        for name in module.no_weight_decay()
    }
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (rest if p.dim() <= 1 or name.endswith(".bias") or name in exempt else decayed).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def build(model: nn.Module, factory: Callable[..., Optimizer], weight_decay: float = 0.0) -> Optimizer:
    """``factory(groups)``, as in ``build(model, partial(torch.optim.AdamW, betas=(0.9, 0.95)), 0.05)``.

    The loop sets the learning rate before every step, from its schedule.
    """
    return factory(groups(model, weight_decay))

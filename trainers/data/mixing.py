"""Mixup, CutMix and label smoothing on a batch, keyed by (seed, epoch, step, rank)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor

from trainers import noise


@dataclass(frozen=True)
class Mixing:
    """``x = lam·x_i + (1 - lam)·x_j`` (mixup, ``lam ~ Beta(mixup_alpha, mixup_alpha)``) or a box of ``x_j`` pasted into
    ``x_i`` (CutMix, ``lam`` the share of ``x_i`` left), ``j`` the batch reversed, one ``lam`` a batch; targets
    ``q = lam·q_i + (1 - lam)·q_j`` of classes smoothed to ``1 - s + s/K`` and ``s/K``.

    ``prob``: how often a batch is mixed; ``switch_prob``: how often by CutMix where both alphas are above 0.  The
    defaults leave a batch as it is.  The drawing is timm's, whose numpy generator is seeded for the call and put back.
    Source: Zhang et al. 2018 (1710.09412), Yun et al. 2019 (1905.04899), Szegedy et al. 2016 (1512.00567).
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.mixing.{name}={getattr(self, name)} must not be negative; 0 switches it off")
        for name in ("prob", "switch_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.mixing.{name}={getattr(self, name)} must be a probability in [0, 1]")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"data.mixing.label_smoothing={self.label_smoothing} must be in [0, 1); the usual value is 0.1"
            )

    @property
    def pairs(self) -> bool:
        """Whether examples are mixed, which takes an even batch."""
        return self.prob > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)

    @property
    def soft(self) -> bool:
        """Whether targets come out as ``(N, K)``."""
        return self.pairs or self.label_smoothing > 0

    def __call__(self, x: Tensor, y: Tensor, classes: int, seed: int, *step: int) -> tuple[Tensor, Tensor]:
        """Mixes ``x`` in place; ``y``: classes ``(N,)``."""
        if not self.pairs:
            return x, mixup_target(y, classes, smoothing=self.label_smoothing) if self.soft else y
        mixup = Mixup(
            mixup_alpha=self.mixup_alpha,
            cutmix_alpha=self.cutmix_alpha,
            prob=self.prob,
            switch_prob=self.switch_prob,
            label_smoothing=self.label_smoothing,
            num_classes=classes,
        )
        with numpy_seeded(int(noise.stream(torch.tensor([seed]), *step)) % 2**32):
            return mixup(x, y)


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """numpy's global generator seeded inside, as it was outside."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)

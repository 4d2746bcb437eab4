"""A model as it is evaluated: fed batches of few sizes, and counted."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from trainers.modes import connected

SIZES = (1, 2, 3, 4, 6, 8, *(size * 2**power for power in range(12) for size in (10, 12, 14, 16)))
"""Above 8 the four eighths of each power of two: at most a quarter more than asked for."""


class Meter(nn.Module):
    """``model``, its batches padded with black images to one of ``sizes``, if there are any.

    Kernels are chosen by the size of a batch and round differently: with few sizes an example's logits seldom depend
    on how many others are with it.  ``forwards`` and ``backwards`` count examples, without the padding.  Where the
    model cuts the graph (it rounds its input, or answers with constants) the gradient is zero, not an error.
    """

    def __init__(self, model: nn.Module, sizes: Sequence[int] = SIZES) -> None:
        super().__init__()
        self.model, self._sizes = model, tuple(sorted(sizes))
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        self.forwards += n
        size = next((size for size in self._sizes if size >= n), n)
        padded = pad(x, [0, 0] * (x.dim() - 1) + [0, size - n]) if size > n else x
        logits: Tensor = self.model(padded)
        if logits.shape[:1] == (size,):  # any other shape is left for its reader to refuse
            logits = logits[:n]
        logits = connected(logits, x)
        if logits.requires_grad and torch.is_grad_enabled():
            logits.register_hook(lambda _: self._count(n))
        return logits

    def _count(self, n: int) -> None:
        self.backwards += n

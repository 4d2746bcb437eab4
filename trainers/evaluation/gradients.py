"""How steep the loss is in the image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainers import distributed, losses
from trainers.modes import frozen, input_gradient, mode, outside_inference
from trainers.types import Batch, Model


@dataclass(frozen=True)
class GradientNorms:
    """Yields ``gradient_l1`` and ``gradient_l2``: the means over examples of ``||∇_x CE(f(x), y)||_1`` and ``_2``.

    Per pixel unit (images in [0, 1]), summed over C, H, W, in eval mode: ``eps · gradient_l1`` is how much a small
    Linf perturbation raises the loss, to first order.

    Errors: ``ValueError`` if no rank has an example.
    """

    def __call__(self, model: Model, batches: Iterable[Batch]) -> Iterator[tuple[str, float]]:
        _, norms = self.norms(model, batches)
        summed = torch.cat([norms.sum(0), torch.tensor([len(norms)], dtype=torch.float64)])
        l1, l2, n = distributed.total(summed).tolist()
        if n == 0:
            raise ValueError(
                "no examples to measure gradients on: the split is empty; choose another or raise its size"
            )
        yield "gradient_l1", l1 / n
        yield "gradient_l2", l2 / n

    def norms(self, model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """``(keys (N,) int64, norms (N, 2) float64)`` on the CPU, of this rank's examples: L1 and L2 of each."""
        keys, norms = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 2, dtype=torch.float64)]
        with mode(model, train=False), frozen(model):
            for batch in batches:
                loss = partial(losses.cross_entropy, y=outside_inference(batch.y))
                gradient = input_gradient(model, batch.x, loss)[0].flatten(1).double()
                norms.append(torch.stack([gradient.abs().sum(1), gradient.norm(dim=1)], 1).cpu())
                keys.append(batch.keys.cpu())
        return torch.cat(keys), torch.cat(norms)

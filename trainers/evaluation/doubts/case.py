"""What every check looks at: the model as the evaluation runs it, some examples, and the evaluation's counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainers import losses, noise
from trainers.attacks.cascade import stream
from trainers.attacks.search import misclassified
from trainers.evaluation.doubts.doubt import Tally
from trainers.modes import connected, input_gradient
from trainers.threat import Threat
from trainers.types import Loss


@dataclass(frozen=True, eq=False)
class Case:
    """``given`` is the user's model, ``model`` the same with a gradient that exists (``Connected``).

    ``x, y, keys``: examples; ``robust: (N,) bool``: who of them withstood every attack.
    ``stated``: the clean accuracy that the model's maker states.
    """

    given: nn.Module
    model: nn.Module
    x: Tensor
    y: Tensor
    keys: Tensor
    robust: Tensor
    threat: Threat
    tally: Tally
    classes: int
    seed: int
    stated: float | None

    @cached_property
    def logits(self) -> Tensor:
        return self.forward(self.x)

    @cached_property
    def right(self) -> Tensor:
        """``(N,) bool``: classified rightly."""
        return ~misclassified(self.logits, self.y)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.given(x)
        return logits

    def streams(self, name: str) -> Tensor:
        """``(N,)`` keys to draw from in the check ``name``: not those that the evaluation's attacks drew from."""
        return stream(noise.stream(self.keys, self.seed), f"doubt: {name}")

    def gradient(self, loss: Loss) -> Tensor:
        """Of the summed loss in the images, ``(N, C, H, W)``."""
        return input_gradient(self.model, self.x, loss)[0]

    @cached_property
    def margin_gradient(self) -> Tensor:
        """Of ``z_y - max_{k != y} z_k``: unlike the cross-entropy's it does not fade where the model is confident."""
        return self.gradient(partial(losses.margin, y=self.y))

    @cached_property
    def vanishing(self) -> Tensor:
        """``(N,) bool``: the gradient of the margin leads nowhere, or is not finite.

        To first order the margin changes by at most ``||g||_1`` anywhere in the cube of images.  Where that is below a
        hundredth of the margin, the wrong class is a hundred cubes away.
        """
        slope = self.margin_gradient.flatten(1).abs().sum(1)
        margin = losses.margin(self.logits, self.y).abs()
        return ~(slope > margin / 100) | ~slope.isfinite()

    def apart(self, one: Tensor, other: Tensor) -> Tensor:
        """``(M,)``: the largest difference of two ``(M, K)`` logits, in units of the mean range of the model's logits.

        What is not finite does not count: that is a doubt of its own.
        """
        spread = (self.logits.amax(1) - self.logits.amin(1)).double()
        spread = spread[spread.isfinite()].mean().nan_to_num(0).clamp_min(1e-30)
        return ((one.double() - other.double()).abs().nan_to_num(0, posinf=0).amax(1)) / spread

    @cached_property
    def resolution(self) -> float:
        """The coarsest machine epsilon of what a forward computes: 2^-23 in float32, 2^-7 where some is bfloat16."""
        with _Types() as types:
            self.forward(self.x[:1])
        return max([torch.finfo(self.x.dtype).eps, *(torch.finfo(t).eps for t in types.seen)])

    @property
    def rounding(self) -> float:
        """How far rounding may put two forwards of the same images apart, as ``apart`` measures."""
        return max(1e-4, 4 * self.resolution)


class _Types(TorchDispatchMode):
    """Notes in ``seen`` the floating-point types of what is computed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point():
            self.seen.add(out.dtype)
        return out


class Connected(nn.Module):
    """``model``, with logits that depend on the image for autograd too: by 0 where its forward cuts the graph.

    Attacks then see a gradient of zero where they would have stopped with an error.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return connected(self.model(x), x)

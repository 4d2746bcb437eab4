"""Where the loss, or the class's logit, is steep in the image."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from trainers import losses
from trainers.evaluation.localisation.explained import explained
from trainers.modes import connected, frozen, mode, outside_inference
from trainers.types import Model


@dataclass(frozen=True)
class GradientMap:
    """``m = mean_c |∇_x CE(f(x), y)|_c`` (``of="loss"``), or of ``f(x)_y`` (``of="logit"``), made a smooth map.

    Per image: ``m`` is clipped to its quantiles ``low`` and ``high``, brought to [0, 1] by its least and largest value,
    averaged over ``window x window`` pixels (those of them inside the image) and blurred by a Gaussian of ``sigma``
    pixels, cut at 3 of them, that mirrors the image at its border.  ``window=1`` and ``sigma=0`` leave it as it is.

    Source: the steps that are published with Singh et al. 2019 (1911.13073), at 224 pixels.  Where we differ: they
    first scale by the extremes of the batch, so that a map depends on its neighbours.  That, and the standardisation
    of each image that follows it, are left out: quantiles and extremes follow a scale and a shift, so neither changes
    the result of one image.  Nor is there a round trip through a colour map.
    Errors: ``ValueError`` for a setting out of its range, and for images smaller than the blur.
    """

    of: str = "loss"
    low: float = 0.02
    high: float = 0.98
    window: int = 3
    sigma: float = 3.0

    def __post_init__(self) -> None:
        if self.of not in ("loss", "logit"):
            raise ValueError(f"localisation.of={self.of!r} must be 'loss' or 'logit'")
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(
                f"localisation.low={self.low:g} and high={self.high:g} must be quantiles, 0 <= low < high <= 1; "
                "0 and 1 clip nothing"
            )
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"localisation.window={self.window} must be an odd number of pixels; 1 averages nothing")
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"localisation.sigma={self.sigma:g} must be 0 pixels or more; 0 blurs nothing")

    @property
    def name(self) -> str:
        return f"gradient_of_{self.of}"

    def __call__(self, model: Model, x: Tensor, y: Tensor | None = None) -> Tensor:
        self._check(x)
        steep = self.steepness(model, x, y).flatten(1)
        ends = torch.tensor([self.low, self.high], dtype=steep.dtype, device=steep.device)
        low, high = steep.quantile(ends, dim=1)[:, :, None]
        usable = (high > low) & high.isfinite()  # else flat, or not a number: a map of zeros
        scaled = (steep.clamp(low, high) - low) / torch.where(usable, high - low, 1)
        maps = torch.where(usable, scaled, 0).reshape(len(x), 1, *x.shape[-2:])
        maps = F.avg_pool2d(maps, self.window, 1, self.window // 2, count_include_pad=False)
        if self.sigma:
            maps = gaussian_blur(maps, [2 * self._reach + 1] * 2, [self.sigma] * 2)
        return maps[:, 0].clamp(0, 1)

    def steepness(self, model: Model, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``m (N, H, W)`` as it is, per pixel unit, in float32 or wider."""
        with mode(model, train=False), frozen(model), torch.inference_mode(False), torch.enable_grad():
            x = outside_inference(x).requires_grad_()
            logits = connected(model(x), x)
            classes = explained(logits.detach(), None if y is None else outside_inference(y))
            value = losses.cross_entropy(logits, classes) if self.of == "loss" else logits.gather(1, classes[:, None])
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).abs().mean(1)

    @property
    def _reach(self) -> int:
        return math.ceil(3 * self.sigma)

    def _check(self, x: Tensor) -> None:
        if min(x.shape[-2:]) <= self._reach:
            raise ValueError(
                f"localisation.sigma={self.sigma:g} blurs over {self._reach} pixels to each side: images of "
                f"{tuple(x.shape[-2:])} are too small; lower it (the published 3 is for 224 pixels)"
            )
        if min(x.shape[-2:]) < self.window // 2 + 1:
            raise ValueError(f"localisation.window={self.window} does not fit into {tuple(x.shape[-2:])}: lower it")

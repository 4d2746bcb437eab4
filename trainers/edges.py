"""Where an image has edges: what the input gradient of a robust network resembles."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SOBEL = ((-0.5, 0.0, 0.5), (-1.0, 0.0, 1.0), (-0.5, 0.0, 0.5))
"""``x / (x² + y²)`` over the 3x3 offsets: the slope along x; its transpose is the slope along y."""


@dataclass(frozen=True)
class EdgeEnergy:
    """``blur( sqrt( Σ_c (Sobel_x * blur(x))_c² + (Sobel_y * blur(x))_c² ) )``, ``(N, 1, H, W)``, all 0 or above.

    ``blur`` is the discrete Gaussian ``e^{-sigma} I_n(sigma)``, ``|n| <= ceil(3 sigma)``, ``I_n`` the modified Bessel
    function, scaled to sum to 1: ``sigma`` is its variance.  Every filter mirrors the image at its border.  No gradient
    flows into it.

    Source: 2409.20139, the target of EdgeReg, there of the normalised image: channels weigh a few percent otherwise.
    Errors: ``ValueError`` for a ``sigma`` that is not above 0, and for images smaller than the blur.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma < math.inf):
            raise ValueError(f"edges.sigma={self.sigma:g} must be above 0; 1 is the published one")

    def check(self, shape: tuple[int, ...]) -> None:
        """``ValueError`` if images of ``shape`` (C, H, W) are smaller than the blur."""
        reach = math.ceil(3 * self.sigma)
        if min(shape[1:]) <= reach:
            raise ValueError(
                f"edges.sigma={self.sigma:g} blurs over {reach} pixels to each side: images of {tuple(shape[1:])} are "
                "too small; lower it"
            )

    def __call__(self, x: Tensor) -> Tensor:
        self.check(x.shape[1:])
        with torch.no_grad():
            wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
            blurred = self.blur(wide)
            along_x = torch.tensor(SOBEL, dtype=wide.dtype, device=x.device)
            energy = _filter(blurred, along_x).square() + _filter(blurred, along_x.T).square()
            return self.blur(energy.sum(1, keepdim=True).sqrt()).to(x.dtype)

    def blur(self, x: Tensor) -> Tensor:
        """Of every channel."""
        line = torch.tensor(_gaussian(self.sigma), dtype=x.dtype, device=x.device)
        return _filter(_filter(x, line[None, :]), line[:, None])


def _gaussian(sigma: float) -> list[float]:
    """``I_n(s) = Σ_k (s/2)^{2k+n} / (k! (k+n)!)``, whose terms fall fast for the sigmas of a blur."""
    reach = math.ceil(3 * sigma)

    def bessel(n: int) -> float:
        terms = 20 + 2 * math.ceil(sigma)
        half = math.log(sigma / 2)
        powers = [(2 * k + n) * half - math.lgamma(k + 1) - math.lgamma(k + n + 1) - sigma for k in range(terms)]
        return math.fsum([math.exp(power) for power in powers])

    side = [bessel(n) for n in range(reach + 1)]
    line = [*side[:0:-1], *side]
    whole = math.fsum(line)
    return [value / whole for value in line]


def _filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel by itself, the image mirrored at its border."""
    height, width = kernel.shape
    padded = F.pad(x, [width // 2, width // 2, height // 2, height // 2], mode="reflect")
    channels = x.shape[1]
    return F.conv2d(padded, kernel.expand(channels, 1, height, width), groups=channels)

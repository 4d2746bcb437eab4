"""The eight smooth activations of *Smooth Adversarial Training*.

A gradient penalty reaches the parameters through the second derivative of the activation, and an attacker's step is
only as good as the gradient it follows.  ReLU has neither: its second derivative is zero almost everywhere and its
first one jumps.  Each docstring gives formula, parameters and the largest ``|f''|``, the sharpness of the bend, which
is ``curvature`` where it is a fixed number.

Source, unless said otherwise: Xie et al. 2020 (2006.14536), section 4.
"""

import math

import torch
from torch import Tensor, nn


def positive(alpha: float, name: str) -> float:
    """``alpha``.  ``ValueError`` unless it is a number above 0."""
    if not (0 < alpha < math.inf):
        raise ValueError(f"model.activation_parameters.alpha={alpha:g} must be a number above 0 for {name}")
    return alpha


class Softplus(nn.Softplus):
    """``f(x) = log(1 + e^x)``.  ``max |f''| = 1/4``, at 0."""

    curvature = 1 / 4

    def __init__(self) -> None:
        super().__init__()


class ParametricSoftplus(nn.Softplus):
    """``f(x) = log(1 + e^{αx}) / α``, which tends to ReLU as ``α`` grows.  ``max |f''| = α/4``, at 0.

    ``alpha``: fixed, 10 in the paper.
    """

    def __init__(self, alpha: float = 10.0) -> None:
        super().__init__(beta=positive(alpha, "parametric_softplus"))
        self.curvature = alpha / 4


class SiLU(nn.SiLU):
    """``f(x) = x · sigmoid(x)``, also called Swish.  ``max |f''| = 1/2``, at 0."""

    curvature = 1 / 2

    def __init__(self) -> None:
        super().__init__()


class GELU(nn.GELU):
    """``f(x) = x · Φ(x)``, ``Φ`` the normal distribution function.  ``max |f''| = sqrt(2/π) ≈ 0.80``, at 0.

    ``approximate``: ``"none"`` (exact) or ``"tanh"``, which the authors' code uses.
    """

    curvature = math.sqrt(2 / math.pi)

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(
                f"model.activation_parameters.approximate={approximate!r} must be 'none' (exact) or 'tanh' for gelu"
            )
        super().__init__(approximate)


class ELU(nn.ELU):
    """``f(x) = x`` for ``x >= 0``, else ``α (e^x - 1)``.  ``max |f''| = α``, at 0 from below.

    ``f'`` jumps at 0 by ``1 - α``: with an ``alpha`` other than 1 it is not smooth (the paper's case study).
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(positive(alpha, "elu"))
        self.curvature = alpha


class CELU(nn.CELU):
    """``f(x) = x`` for ``x >= 0``, else ``α (e^{x/α} - 1)``: ``f'`` is continuous for every ``α``.

    ``max |f''| = 1/α``, at 0 from below.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(positive(alpha, "celu"))
        self.curvature = 1 / alpha


class SmoothReLU(nn.Module):
    """``f(x) = x - log(1 + αx) / α`` for ``x >= 0``, else 0.  ``max |f''| = α``, at 0 from above.

    Like ReLU it is zero for ``x < 0``, with an exactly zero gradient.  ``alpha`` is learned, one scalar a site, as
    ``α = raw²`` with ``raw = sqrt(alpha)`` at first: 400 in the authors' code.  The authors' weight decay leaves
    it alone.
    """

    def __init__(self, alpha: float = 400.0) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(math.sqrt(positive(alpha, "smooth_relu"))))

    def forward(self, x: Tensor) -> Tensor:
        # half precision would overflow at αx > 65504; a learned α of exactly 0 would divide 0 by 0
        dtype = torch.promote_types(x.dtype, torch.float32)
        positive = x.to(dtype).clamp_min(0)
        alpha = self.raw.to(dtype).square().clamp_min(1e-12)
        return (positive - torch.log1p(alpha * positive) / alpha).to(x.dtype)

    def extra_repr(self) -> str:
        return f"alpha={self.raw.detach().square().item():g}"


class Mish(nn.Mish):
    """``f(x) = x · tanh(log(1 + e^x))``.  ``max |f''| ≈ 0.644``, at -0.088."""

    curvature = 0.644

    def __init__(self) -> None:
        super().__init__()

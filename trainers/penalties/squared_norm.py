"""The squared norm of the input gradient."""

from dataclasses import dataclass

from torch import Tensor

from trainers.threat import Threat


@dataclass(frozen=True)
class SquaredNorm:
    """``½ (eps · ||g_i||_*)²``, the dual norm of the threat: squared L2 for L2.  ``(N,)``

    It presses hardest where the gradient is largest, and unlike the norm has a slope of zero where it vanishes.

    Source: Finlay and Oberman 2019 (1905.11468), whose ``λ/2 ||g||²`` is this with ``weight = λ / eps²``.
    """

    threat: Threat

    def __call__(self, gradient: Tensor, x: Tensor) -> Tensor:
        return (self.threat.eps * self.threat.dual_norm(gradient)).square() / 2

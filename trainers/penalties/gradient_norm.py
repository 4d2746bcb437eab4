"""The norm of the input gradient."""

from dataclasses import dataclass

from torch import Tensor

from trainers.threat import Threat


@dataclass(frozen=True)
class GradientNorm:
    """``eps · ||g_i||_*``, the dual norm of the threat: L1 for Linf, L2 for L2.  ``(N,)``

    This is the first-order increase of the loss that the worst perturbation of the threat can cause.

    Source: 2409.20139; Finlay and Oberman 2019 (1905.11468) for L2, whose code squares the norm; here it is the norm
    itself for both threats.  Where we differ from 2409.20139's code: the gradient is with respect to pixels, not to
    the normalised input, so that the factor ``1/sigma`` (one constant, 0.225, for all channels there) falls away.
    """

    threat: Threat

    def __call__(self, gradient: Tensor, x: Tensor) -> Tensor:
        return self.threat.eps * self.threat.dual_norm(gradient)

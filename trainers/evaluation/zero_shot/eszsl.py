"""ESZSL: compatibility in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.evaluation.zero_shot.compatibility import Compatibility, seen_of


@dataclass(frozen=True)
class ESZSL:
    """``V = (X Xᵀ + γ I)⁻¹ X Y Sᵀ (S Sᵀ + λ I)⁻¹``, in float64.

    ``X (d, n)``: the features; ``Y (n, k)``: +1 at an example's class, -1 elsewhere; ``S (a, k)``: the attributes of
    the ``k`` classes that have examples.  ``gamma`` weighs against squared features, ``lambda_`` against squared
    attributes: scaling either scales what its setting means.

    Without noise it is exact where attributes are of one length and ``S Sᵀ ∝ I``, ``S 1 = 0``: with ``X = M A`` and
    balanced classes, ``Mᵀ V → 2 (S Sᵀ)⁻¹`` as both settings go to 0, and ``uᵀ a_k`` is largest at ``a_k = u``.

    Source: Romera-Paredes and Torr, *An embarrassingly simple approach to zero-shot learning*, ICML 2015.
    Errors: ``ValueError`` for settings that are not above 0, and for tables that do not fit.
    """

    gamma: float = 1.0
    lambda_: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("gamma", self.gamma), ("lambda_", self.lambda_)):
            if not 0 < value < float("inf"):
                raise ValueError(f"eszsl.{name}={value:g} must be above 0 and finite, such as 1")

    def __call__(self, features: Tensor, classes: Tensor, attributes: Tensor) -> Compatibility:
        seen, position = seen_of(features, classes, attributes)
        x, s = features.double(), attributes[seen].double()
        wanted = 2 * s[position] - s.sum(0)  # the rows of Y Sᵀ, without the n x k table Y
        left = torch.linalg.solve(x.T @ x + self.gamma * torch.eye(x.shape[1], dtype=x.dtype), x.T @ wanted)
        right = s.T @ s + self.lambda_ * torch.eye(s.shape[1], dtype=s.dtype)
        return Compatibility(torch.linalg.solve(right, left, left=False))


def grid() -> tuple[ESZSL, ...]:
    """Both settings in powers of ten from 1000 to 0.001, the strongest first: of equal ones it is chosen."""
    values = [10.0**power for power in range(3, -4, -1)]
    return tuple(ESZSL(gamma, lambda_) for gamma in values for lambda_ in values)

"""A smooth activation with a bend as sharp as is asked for."""

import math

from torch import Tensor, nn

from trainers.activations import smooth


class Sharpened(nn.Module):
    """``g(x) = f(ax) / a``, whose largest ``|g''|`` is ``curvature``: ``a = curvature / max |f''|``.

    As ``curvature`` grows every one of them tends to its positive and negative slopes' corner, ReLU for most; a small
    one is almost a line round 0.  The slopes far from 0 stay what they are.

    Source: 2603.23860 has the largest second derivative decide robust accuracy (best between 4 and 10, as reported).
    Errors: ``ValueError`` for a ``curvature`` that is not above 0, and for an ``f`` whose bend has no fixed number.
    """

    def __init__(self, curvature: float = 4.0, activation: nn.Module | None = None) -> None:
        super().__init__()
        if not (0 < curvature < math.inf):
            raise ValueError(f"model.activation_parameters.curvature={curvature:g} must be a number above 0")
        self.activation = smooth.SiLU() if activation is None else activation
        own = getattr(self.activation, "curvature", None)
        if own is None:
            raise ValueError(
                f"model.activation_parameters.curvature={curvature:g}: {type(self.activation).__name__} has no largest "
                "second derivative that could be set; choose softplus, silu, gelu, elu, celu, mish or "
                "parametric_softplus"
            )
        self.curvature, self.scale = curvature, curvature / own

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.scale * x) / self.scale

    def extra_repr(self) -> str:
        return f"curvature={self.curvature:g}"

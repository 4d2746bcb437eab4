"""BatchNorm folded into the convolutions before it, for a network that is only evaluated."""

import copy
import logging

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

_log = logging.getLogger(__name__)


def fused(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy of ``model`` (in eval mode) without the BatchNorms that follow a convolution; ``model`` where that fails.

    The copy is used only if its logits on ``x`` are ``model``'s up to rounding, 1e-4 of their largest: what cannot be
    traced, or comes out different, is left as it is.
    """
    try:
        folded = fuse(copy.deepcopy(model).eval())
        with torch.no_grad():
            expected, logits = model(x), folded(x)
    except Exception as error:  # tracing fails in as many ways as there are networks
        _log.debug("BatchNorm is not folded: %s", error)
        return model
    tolerance = 1e-4 * float(expected.abs().max())
    return folded.eval() if torch.allclose(logits, expected, rtol=0, atol=tolerance) else model

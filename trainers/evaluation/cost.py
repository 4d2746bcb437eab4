"""What an objective costs, in units of a standard training step."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from trainers import losses
from trainers.types import Model, Objective


def standard_steps(objective: Objective, model: Model, x: Tensor, y: Tensor) -> float:
    """FLOPs of one step of ``objective`` over those of one standard step: forward and backward of a cross-entropy.

    A standard step is 3 forwards, less the input gradient of the first layer; the gradient of the input alone is 2.
    So FGSM training costs about 5/3, PGD-3 keeping the last iterate 3, double back-propagation 2.  Counted are
    convolutions, matrix products and attention, as they are dispatched, so it is exact under ``torch.func`` and the
    same on any machine; element-wise work, memory traffic and kernels are not, so seconds may differ.

    Works on a copy of ``model``, in the objective's mode, on ``x, y`` as given (a few images will do): the model and
    torch's random state are left as they were.  A compiled model must be passed uncompiled.
    """
    model = copy.deepcopy(model).train(objective.mode == "train")
    model.zero_grad(set_to_none=True)
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        with _Flops() as step:
            objective(model, x, y)[0].backward()
        model.zero_grad(set_to_none=True)
        with _Flops() as standard:
            losses.cross_entropy(model(x), y).mean().backward()
    return step.total / standard.total


class _Flops(TorchDispatchMode):
    """Floating-point operations of everything dispatched inside.

    torch's own ``FlopCounterMode`` fails under ``torch.func.grad`` (its module tracker hooks ``autograd.grad``) and
    counts the weight gradient of a grouped convolution ``groups`` times.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet is torch.ops.aten.convolution_backward:
            self.total += _convolution_backward(args)
        elif packet in flop_registry:
            self.total += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        return out


def _convolution_backward(args: Sequence[Any]) -> int:
    """As much as the forward for each of the gradients with respect to input and weight that is asked for."""
    grad_out, x, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
    positions = (x if transposed else grad_out).shape
    forward = 2 * positions[0] * math.prod(positions[2:]) * weight.numel()
    return forward * sum(wanted[:2])

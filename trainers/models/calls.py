"""Which functions a forward pass calls, whatever modules they hide in."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_RELU = (F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, F.relu6, F.leaky_relu)


class Calls(TorchFunctionMode):
    """Notes in ``seen`` the names of what is called inside: ``relu`` functions and fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELU:
            self.seen.add("relu")
        # with weights asked for, multi-head attention is plain matrix products
        if func is F.scaled_dot_product_attention or (
            func is F.multi_head_attention_forward and not kwargs.get("need_weights", True)
        ):
            self.seen.add("fused attention")
        return func(*args, **kwargs)

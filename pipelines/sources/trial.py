"""Two images through a network, before anything is spent on it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import Misuse, first_line


def check_forward(model: nn.Module, classes: int, input_size: Sequence[int], setting: str) -> None:
    """``Misuse``, beginning with ``setting``, unless ``model`` answers a grey image and one of fixed noise (C, H, W)
    with finite floats (2, ``classes``)."""
    noise = torch.rand(*input_size, generator=torch.Generator().manual_seed(0))
    x = torch.stack([torch.full_like(noise, 0.5), noise])
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a network that draws leaves the caller's numbers
            logits = model(x)
    except Exception as error:
        raise Misuse(
            f"{setting} cannot take {tuple(input_size)} images, float32 in [0, 1] ({first_line(error)[:300]}); give "
            "it the data it was made for, or another model"
        ) from error
    if problem := _problem(logits, classes):
        raise Misuse(f"{setting} {problem}")


def _problem(logits: Any, classes: int) -> str:
    if not isinstance(logits, Tensor):
        return f"gives no tensor but {type(logits).__name__}: let it return its logits (N, {classes}) only"
    if logits.dim() != 2 or len(logits) != 2:
        return (
            f"gives {tuple(logits.shape)} for 2 images, not logits (2, {classes}): let it return one row of logits an "
            "image"
        )
    if logits.shape[1] != classes:
        return (
            f"gives {logits.shape[1]} logits an image, and the data have {classes} classes: give the data it was made "
            "for, or another model"
        )
    if not logits.is_floating_point():
        return f"gives {logits.dtype}, not logits: let it return the floats that its prediction is taken from"
    finite = logits.isfinite().all(dim=1).tolist()
    if not all(finite):
        which = " and ".join(name for name, fine in zip(("a grey image", "noise"), finite, strict=True) if not fine)
        return f"gives NaN or infinite logits for {which}: its weights or its normalisation are broken; repair them"
    return ""

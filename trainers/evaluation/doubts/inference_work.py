"""A forward pass that differentiates, or changes its own weights."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch

from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt
from trainers.evaluation.doubts.untouched import changed, copies, untouched

NAME = "optimisation at inference"

_WATCHED: dict[CodeType, str] = {
    torch.autograd.grad.__code__: "torch.autograd.grad",
    torch.autograd.backward.__code__: "torch.autograd.backward",
    torch.autograd.forward_ad.enter_dual_level.__code__: "torch.autograd.forward_ad",
}
"""By their code, so that a name imported before, ``Tensor.backward`` and ``torch.func.grad`` are seen as well."""


def look(case: Case) -> Doubt | None:
    """One forward under ``no_grad`` calls autograd, or leaves other parameters behind.

    ``torch.compile`` calls autograd while it compiles, so the forward must run uncompiled (``examine`` sees to that).
    """
    with untouched(case.given):
        for parameter in case.given.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        before = copies(case.given.named_parameters())
        with _watching() as calls:
            case.forward(case.x)
        weights = changed(before, dict(case.given.named_parameters()))
    if not calls and not weights:
        return None
    what = [f"calls {name} ({count} times)" for name, count in sorted(calls.items())]
    what += [f"changes its weights ({weights[0]} ...)"] if weights else []
    return Doubt(
        NAME,
        f"One forward {' and '.join(what)}: the model optimises its input or itself at inference. Attacks may not "
        "differentiate through that, and standard ones overestimate such defences; attack the whole loop, unrolled, or "
        "report the model without it.",
        {**calls, "weights_changed": len(weights)},
    )


@contextmanager
def _watching() -> Iterator[dict[str, int]]:
    """Counts the calls of what is watched in this thread, and gives a profiler that was there its place back."""
    calls: dict[str, int] = {}
    before = sys.getprofile()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        name = _WATCHED.get(frame.f_code) if event == "call" else None
        if name is not None:
            calls[name] = calls.get(name, 0) + 1

    sys.setprofile(watch)
    try:
        yield calls
    finally:
        sys.setprofile(before)

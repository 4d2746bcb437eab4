"""Targeted APGD at the classes whose boundaries are nearest to first order, not those with the largest logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.attacks.apgd import APGD
from trainers.modes import outside_inference
from trainers.types import Model


@dataclass(frozen=True)
class MALT(APGD):
    """``apgd-t`` whose targets are the classes of smallest ``(z_y - z_t) / ||∇ (z_y - z_t)||_*``.

    That is the distance, in the threat's norm, to where the linearised model calls the image ``t``; of the
    ``candidates`` largest logits the ``targets`` nearest are attacked.  Networks with many classes have targets that
    are near though their logit is small, and ``apgd-t`` never looks at them.  The ranking costs one forward, and one
    backward a candidate.

    It is no part of AutoAttack: report it beside, not inside.
    Source: in the manner of Melamed, Yehudai and Shamir 2024 (2407.02240); the slope is measured in the threat's dual
    norm, which makes the ratio a distance.
    """

    loss: str = "targeted_dlr"
    candidates: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss != "targeted_dlr":
            raise ValueError(f"attack.loss={self.loss!r}: targets are ranked for 'targeted_dlr' only; use APGD")
        if self.candidates < self.targets:
            raise ValueError(f"attack.candidates={self.candidates} must be at least attack.targets={self.targets}")

    @property
    def name(self) -> str:
        return "malt"

    def ranked(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = outside_inference(x).requires_grad_()
            logits = model(x)
            order = logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True)
            candidates = order[:, : min(self.candidates, logits.shape[1] - 1)]
            gaps = logits.gather(1, y[:, None]) - logits.gather(1, candidates)
            slopes = []
            for i, gap in enumerate(gaps.sum(0)):
                (gradient,) = torch.autograd.grad(gap, x, retain_graph=i + 1 < gaps.shape[1])
                slopes.append(self.threat.dual_norm(gradient))
        distances = gaps.detach() / torch.stack(slopes, 1).clamp_min(torch.finfo(x.dtype).tiny)
        return candidates.gather(1, distances.argsort(dim=1))[:, : self.targets]

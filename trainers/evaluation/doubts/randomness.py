"""Logits that differ from one forward to the next."""

import torch

from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt

NAME = "randomness"

FORWARDS = 5


def look(case: Case) -> Doubt | None:
    """Some logit of ``FORWARDS`` forwards differs by more than rounding: 1e-4 of the logits' range in float32."""
    seen = [case.forward(case.x) for _ in range(FORWARDS)]
    apart = torch.stack([case.apart(logits, seen[0]) for logits in seen[1:]])
    largest = float(apart.max())
    if not largest > case.rounding:
        return None
    flips = torch.stack([logits.argmax(1) != seen[0].argmax(1) for logits in seen[1:]]).any(0)
    return Doubt(
        NAME,
        f"The same images give different logits in {FORWARDS} forwards, so gradients are noisy and an example that "
        "withstood may have been lucky. Evaluate with attack.version=rand, which averages gradients over the noise "
        "(EOT), or switch the randomness off at inference if it is there by mistake.",
        {
            "forwards": FORWARDS,
            "images": len(case.y),
            "images_that_differ": int((apart.amax(0) > case.rounding).sum()),
            "predictions_that_differ": int(flips.sum()),
            "largest_difference_of_logits": largest,
        },
    )

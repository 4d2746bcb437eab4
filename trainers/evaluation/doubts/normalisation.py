"""Images normalised once too often, or not at all."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainers.attacks.search import misclassified
from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, Evidence
from trainers.evaluation.intervals import paired_difference, wilson

NAME = "wrong normalisation"

CONFIDENCE = 0.999
"""Of the intervals: a model is looked at once, with a dozen candidates, and should not be accused by chance."""

GAIN = 0.05

STATISTICS = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "MNIST's": ((0.1307,), (0.3081,)),
    "0.5 and 0.5 as": ((0.5,), (0.5,)),
}


def look(case: Case) -> Doubt | None:
    """One of two.  Other inputs are classified better than the images, by 5 points or more with 99.9 % confidence
    (paired); or the evaluation's clean accuracy is below the ``stated`` one, which is above its 99.9 % Wilson interval.
    """
    tally = case.tally
    low, high = wilson(tally.clean_right, tally.n, CONFIDENCE)
    short = case.stated is not None and case.stated > high
    better = _better(case)
    if not short and better is None:
        return None
    evidence: Evidence = {"clean_accuracy": tally.clean_right / tally.n, "n": tally.n, "at_least": low, "at_most": high}
    seen = []
    if case.stated is not None and short:
        evidence["stated_clean_accuracy"] = case.stated
        seen.append(
            f"the clean accuracy is {tally.clean_right / tally.n:.1%} of {tally.n}, the stated one {case.stated:.1%}"
        )
    if better is not None:
        evidence |= better
        seen.append(f"images {better['input']} are classified rightly more often ({better['gained']} more)")
    return Doubt(
        NAME,
        f"Of this model {' and '.join(seen)}: its input is probably normalised twice or not at all, or these are other "
        "data. Images go in as pixels in [0, 1]; put exactly one normalisation, with the statistics it was trained "
        "with, inside the model.",
        evidence,
    )


def _better(case: Case) -> Evidence | None:
    """The input that raises the accuracy most, if it does so clearly."""
    right, n, best = case.right, len(case.y), None
    for name, x in _inputs(case):
        try:
            now = ~misclassified(case.forward(x), case.y)
        except Exception:  # a model may refuse what is not in [0, 1], in any way it likes
            continue
        gained, lost = int((now & ~right).sum()), int((right & ~now).sum())
        clear = paired_difference(gained, lost, n, CONFIDENCE)[0] > GAIN
        if clear and (best is None or gained - lost > best[0]):
            best = gained - lost, name, int(now.sum())
    if best is None:
        return None
    return {"input": best[1], "gained": best[0], "images": n, "right": int(right.sum()), "right_with_it": best[2]}


def _inputs(case: Case) -> Iterator[tuple[str, Tensor]]:
    """What the model would have wanted, had it no normalisation of its own, one too many, or one for 8-bit images."""
    yield "multiplied by 255", case.x * 255
    channels = case.x.shape[1]
    batch = case.x.double().transpose(0, 1).flatten(1)
    own = (batch.mean(1).tolist(), batch.std(1, correction=0).clamp_min(1 / 255).tolist())
    for name, (mean, std) in {**STATISTICS, **dict(_own(case.given)), "these images'": own}.items():
        if {len(mean), len(std)} <= {1, channels}:
            shift, scale = (torch.tensor(v).to(case.x).reshape(1, -1, 1, 1) for v in (mean, std))
            yield f"normalised with {name} mean and std", (case.x - shift) / scale
            yield f"with the normalisation by {name} mean and std undone", case.x * scale + shift


def _own(model: nn.Module) -> Iterator[tuple[str, tuple[list[float], list[float]]]]:
    """Statistics that the model brings: tensors ``mean`` and ``std`` of a module, or timm's ``pretrained_cfg``."""
    for module in model.modules():
        config = getattr(module, "pretrained_cfg", None)
        config = config if isinstance(config, dict) else {}
        mean, std = (getattr(module, name, config.get(name)) for name in ("mean", "std"))
        if mean is not None and std is not None and not callable(mean) and not callable(std):
            values = [torch.as_tensor(v).detach().double().flatten().tolist() for v in (mean, std)]
            yield "the model's own", (values[0], values[1])
            return

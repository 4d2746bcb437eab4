"""Training behaviour at inference: modules left in train mode, and examples that feel who else is in their batch."""

import torch
from torch import Tensor

from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, Evidence
from trainers.evaluation.doubts.untouched import changed, copies, untouched

NAME = "train/eval mode leak"


def look(case: Case) -> Doubt | None:
    """One of three, beyond rounding: ``model.eval()`` leaves modules in train mode and other logits than with every
    module in eval mode, which is how the evaluation runs it; an example's logits depend on its companions or its
    place in the batch; a forward changes buffers.

    Batches of one size are compared: another size is rounded otherwise.
    """
    stuck, difference = _after_eval(case)
    companions, buffers = _companions(case)
    evidence: Evidence = {}
    seen = []
    if stuck and difference > 10 * case.rounding:
        evidence |= {"modules_in_train_mode": len(stuck), "first": stuck[0], "difference_of_logits": difference}
        seen.append(f"after model.eval() some modules are still in train mode ({stuck[0]} ...)")
    if companions > 10 * case.rounding:
        evidence["difference_by_companions"] = companions
        seen.append("an image's logits depend on the other images of its batch or on its place among them")
    if buffers:
        evidence |= {"buffers_changed": len(buffers), "first_buffer": buffers[0]}
        seen.append(f"a forward in eval mode changes buffers ({buffers[0]} ...)")
    if not seen:
        return None
    what = "; ".join(seen)
    return Doubt(
        NAME,
        f"{what[0].upper()}{what[1:]}. The model evaluated is then not the one used elsewhere, and the numbers "
        "depend on the batch size. Let train() and eval() reach every module, and use running statistics at inference.",
        evidence,
    )


def _pair(case: Case) -> tuple[Tensor, Tensor]:
    """Two batches of a size that begin with the same images: their negatives follow in one, themselves in the other."""
    head = case.x[: max(1, len(case.x) // 2)]
    return torch.cat([head, head]), torch.cat([head, 1 - head])


def _after_eval(case: Case) -> tuple[list[str], float]:
    """``(names of modules in train mode after model.eval(), how far it moves the logits)``."""
    _, batch = _pair(case)
    expected = case.forward(batch)
    with untouched(case.given):
        case.given.eval()
        stuck = [name or type(module).__name__ for name, module in case.given.named_modules() if module.training]
        difference = float(case.apart(case.forward(batch), expected).max()) if stuck else 0.0
    return stuck, difference


def _companions(case: Case) -> tuple[float, list[str]]:
    """``(mean difference of logits by companions and place, beyond that of repeating, names of buffers changed)``."""
    same, mixed = _pair(case)
    n = len(same) // 2
    with untouched(case.given):
        before = copies(case.given.named_buffers())
        alone, again = case.forward(same), case.forward(same)
        beside, turned = case.forward(mixed), case.forward(mixed.flip(0)).flip(0)
        buffers = changed(before, dict(case.given.named_buffers()))
    noise = float(case.apart(again, alone).mean())
    moved = max(float(case.apart(alone[:n], beside[:n]).mean()), float(case.apart(turned, beside).mean()))
    return (moved if moved > 3 * noise else 0.0), buffers

"""What a person looks at: an image, where its loss is steep, and how it was changed to be mistaken."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trainers import losses
from trainers.evaluation.attack_run import AttackRun, Effort
from trainers.evaluation.meter import Meter
from trainers.modes import frozen, input_gradient, mode, outside_inference
from trainers.types import Attack, Batch


@dataclass(frozen=True)
class Seen:
    """Of one model and the examples ``ids``, ``(N, ...)`` on the CPU: ``prediction`` of the images; ``gradient``, that
    of the cross-entropy in the pixels; ``adversarial`` and its ``adversarial_prediction`` and ``distance`` where
    ``fooled``, else the image itself."""

    ids: Tensor
    prediction: Tensor
    gradient: Tensor
    fooled: Tensor
    adversarial: Tensor
    adversarial_prediction: Tensor
    distance: Tensor


def look(attack: Attack, model: nn.Module, batch: Batch, classes: int, effort: Effort) -> Seen:
    """``batch`` as ``model`` sees it, and as ``attack`` changes it; where it cuts the graph the gradient is zero."""
    model = model if isinstance(model, Meter) else Meter(model, sizes=())
    with mode(model, train=False), frozen(model):
        gradient, _, logits = input_gradient(
            model, batch.x, partial(losses.cross_entropy, y=outside_inference(batch.y))
        )
    prediction = logits.argmax(1)
    right = (prediction == batch.y).nonzero()[:, 0]
    fooled, distance = torch.zeros_like(batch.y, dtype=torch.bool), torch.zeros(len(batch.y), dtype=torch.float64)
    adversarial, changed = batch.x.clone(), prediction.clone()
    row = {int(i): n for n, i in enumerate(batch.keys.tolist())}
    given = Batch(batch.x[right], batch.y[right], batch.keys[right])
    for ended in filter(None, AttackRun(attack, model, [given] if len(right) else [], classes, effort)):
        rows = torch.tensor([row[i] for i in ended.ids.tolist()])
        fooled[rows], adversarial[rows], changed[rows] = ended.fooled, ended.x_adv, ended.prediction
        distance[rows] = ended.distance.double().cpu()
    parts = (batch.keys, prediction, gradient, fooled, adversarial, changed, distance)
    return Seen(*(part.cpu() for part in parts))


def telling(right: Tensor, fooled: Tensor, labels: Tensor, count: int) -> Tensor:
    """Rows to show: one of each class as far as they go, first those that were right and fooled, then the others."""
    order = torch.where(right & fooled, 0, torch.where(right, 1, 2))
    by_preference = order.argsort(stable=True).tolist()
    seen = dict[int, int]()
    for row in by_preference:
        seen.setdefault(int(labels[row]), row)
    chosen = list(seen.values())[:count]
    chosen += [row for row in by_preference if row not in chosen][: count - len(chosen)]
    return torch.tensor(sorted(chosen), dtype=torch.int64)

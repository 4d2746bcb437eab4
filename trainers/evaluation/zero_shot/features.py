"""What a network sees before it names a class."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainers import distributed, losses
from trainers.data.zero_shot_splits import ZeroShotSet
from trainers.models.classifier import Classifier
from trainers.modes import mode
from trainers.types import Batch, Model


def features(model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """``(keys (n,) int64, features (n, d) float32)`` on the CPU, of this rank's examples, in eval mode: pooled, as they
    enter the classifier.

    ``model``: of ``trainers.models.create``, or a timm network: ``forward_head(forward_features(x), pre_logits=True)``.

    Errors: ``ValueError`` for a network without ``forward_head``, and for features that are not finite.
    """
    keys, found = [torch.zeros(0, dtype=torch.int64)], []
    with mode(model, train=False), torch.no_grad():
        for batch in batches:
            found.append(_pooled(model, batch.x).float().cpu())
            keys.append(batch.keys.cpu())
    table = torch.cat(found) if found else torch.zeros(0, 0)
    if not table.isfinite().all():
        raise ValueError("the network's features are not finite: its weights are damaged, or it diverged in training")
    return torch.cat(keys), table


def _pooled(model: Model, x: Tensor) -> Tensor:
    network: Any = model.network if isinstance(model, Classifier) else model
    if not hasattr(network, "forward_head"):
        raise ValueError(
            f"{type(network).__name__} has no forward_head, so its features cannot be told from its logits: take a "
            "timm network, or give it forward_features and forward_head(x, pre_logits=False)"
        )
    x = model.normalize(x) if isinstance(model, Classifier) else x
    pooled: Tensor = network.forward_head(network.forward_features(x), pre_logits=True)
    return pooled.flatten(1)


def on_backbone(
    model: Model,
    learn: Iterable[Batch],
    judge: Iterable[Batch],
    attributes: Tensor,
    names: Sequence[str],
    validation: Sequence[int] = (),
) -> ZeroShotSet:
    """The zero-shot task on ``model``'s features: ``learn`` from some batches, ``judge`` on others.

    Their ``y`` are rows of ``attributes`` and ``names``.  A class of ``judge`` that ``learn`` has is seen, another one
    unseen; which classes the network itself was trained on is for the caller to keep to.

    Errors: ``ValueError`` where several ranks hold a share each, for an image in both, and as ``ZeroShotSet``.
    """
    if distributed.world() > 1:
        raise ValueError(
            f"zero-shot learning solves over all examples, and {distributed.world()} ranks hold a share each: measure "
            "it in one process"
        )
    (keys, x, y), (judged_keys, judged_x, judged_y) = _gathered(model, learn), _gathered(model, judge)
    if len(both := keys[torch.isin(keys, judged_keys)]):
        raise ValueError(f"{len(both)} examples, such as {int(both[0])}, are learnt from and judged on: hold them out")
    seen = torch.isin(judged_y, y)
    rows = torch.arange(len(judged_y)) + len(y)
    return ZeroShotSet(
        features=torch.cat([x, judged_x]),
        classes=torch.cat([y, judged_y]),
        attributes=attributes,
        names=tuple(names),
        trainval_loc=torch.arange(len(y)),
        test_seen_loc=rows[seen],
        test_unseen_loc=rows[~seen],
        validation=tuple(validation),
        origin="the zero-shot task on a backbone",
    )


def _gathered(model: Model, batches: Iterable[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    kept = [torch.zeros(0, dtype=torch.int64)]

    def passing() -> Iterable[Batch]:
        for batch in batches:
            kept.append(losses.hard(batch.y).cpu())
            yield batch

    keys, table = features(model, passing())
    if not len(keys):
        raise ValueError("no examples to learn from or to judge on: a split is empty; choose another")
    return keys, table, torch.cat(kept)

"""Ray's trainer, without the actors that have nothing to do here: each is a process, and takes a second or two."""

from typing import Any

from ray.train.torch import TorchTrainer

_DATASETS = "DatasetsCallback"
"""Hands out Ray Data sets.  Ours are read by the workers themselves."""
_CLEANER = "PlacementGroupCleanerCallback"
"""Frees the processors of a run whose controller was killed, of which it can learn from the dashboard only."""


class Trainer(TorchTrainer):
    """By names that another Ray may not have: with such a one they start as Ray has it."""

    def _create_default_callbacks(self) -> list[Any]:
        idle = {_DATASETS} if _dashboard() else {_DATASETS, _CLEANER}
        made = super()._create_default_callbacks()  # type: ignore[misc]  # mypy sees Ray Train's first trainer
        return [callback for callback in made if type(callback).__name__ not in idle]


def _dashboard() -> bool:
    """Whether this Ray has one; yes where that cannot be told."""
    from ray._private import worker

    return bool(getattr(worker._global_node, "webui_url", "unknown"))

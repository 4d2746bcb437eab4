"""Three registered versions of a small digits network, and what the gate found of them, made once for all tests."""

import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import nn

from pipelines.tracking import registry, runs
from trainers import models
from trainers.data.digits import Digits
from trainers.data.resident import Resident
from trainers.evaluation.accuracy import CleanAccuracy

SIZE = (1, 8, 8)
SOUND, BETTER, MASKED = 1, 2, 3
"""The versions: trained for a little, for longer, and the longer trained with logits too large for gradients."""


def world(folder: Path, template: Path) -> str:
    """The address of a new tracking database in ``folder`` that has them as ``digits``."""
    folder.mkdir(parents=True)
    shutil.copyfile(template, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    for epochs, scale in ((5, 1.0), (10, 1.0), (10, 1e6)):
        put(uri, folder, network(epochs, scale), f"{epochs}-{scale:g}")
    return uri


def put(uri: str, folder: Path, model: nn.Module, key: str, name: str = "digits") -> int:
    models.save(model, folder / f"saved-{key}")
    run_id = runs.open_run(uri, "holdfast", key, key, {})
    runs.close_run(uri, run_id)
    tags: Mapping[str, str] = {"recipe": "digits_standard", "threat": "Linf 0.1", "data_digest": "d" * 64}
    metrics = {"clean_accuracy": accuracy(model), "robust_accuracy": 0.5}
    version = registry.register(uri, run_id, model, folder / f"saved-{key}", name, metrics, tags, SIZE)
    assert version is not None
    return version


def accuracy(model: nn.Module) -> float:
    data = Resident(Digits(), batch_size=64, validation=64)
    return dict(CleanAccuracy()(model, data.held_out("test", 0, 1, torch.device("cpu"), None)))["clean_accuracy"]


@cache
def network(epochs: int, scale: float) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        arguments = {"width": 8, "blocks": 1}
        net = models.create("holdfast_resnet", 10, SIZE, activation="gelu", arguments=arguments)
        data = Resident(Digits(), batch_size=64, validation=64)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for epoch in range(epochs):
            for batch in data.train(epoch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(batch.x), batch.y).backward()
                optimizer.step()
        last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        with torch.no_grad():
            last.weight *= scale
            last.bias *= scale
    return net.eval()

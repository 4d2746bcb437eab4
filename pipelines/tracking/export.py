"""A network as an MLflow model on disk: a pt2 graph of any batch size, and the files that rebuild the network."""

import contextlib
import copy
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import first_line
from pipelines.redact import redact_text

if TYPE_CHECKING:
    from torch import nn

FILES = ("model.json", "weights.safetensors")
"""What ``trainers.models.save`` writes."""
EXTRA = "extra_files"
"""Where MLflow puts them in a model."""
NOTE = "registered_model_meta"

_PACKAGES = ("torch", "timm", "safetensors", "numpy")


def export(model: "nn.Module", directory: Path, example_shape: Sequence[int], to: Path) -> None:
    """Write ``model`` as an MLflow model in the new folder ``to``; ``model`` itself stays as it is.

    The graph computes in float32 on the CPU, in eval mode, ``(N, *example_shape)`` to ``(N, K)`` for every N >= 1.
    Attention is exported as plain matrix products, so that the graph can be differentiated twice.
    """
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from trainers.models.second_order import prepare

    network = copy.deepcopy(model).cpu().float().eval().requires_grad_(True)
    prepare(network)
    # The exporter fixes a dimension of size 1 for ever, and -1 in the signature is what makes the batch's one free.
    example = np.full((2, *example_shape), 0.5, dtype=np.float32)
    with torch.no_grad():
        classes = int(network(torch.from_numpy(example)).shape[1])
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, *example_shape), "pixels")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, classes), "logits")]),
    )
    with quiet():
        mlflow.pytorch.save_model(
            network,
            str(to),
            signature=signature,
            input_example=example,
            serialization_format="pt2",
            pip_requirements=requirements(),
            extra_files=[str(directory / file) for file in FILES],
        )


def digest(folder: Path) -> str:
    """SHA-256 over path and content of every file of a model, but for the note MLflow adds when it fetches one."""
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != NOTE:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            sha.update(f"{name} {content}\n".encode())
    return sha.hexdigest()


def served(folder: Path) -> tuple[Any, str]:
    """The graph that ``mlflow.pytorch.load_model`` serves, or None and why it does not load; nothing is unpickled."""
    import mlflow.pytorch

    variable = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"  # an artefact of somebody else's might ask for it
    before = os.environ.get(variable)
    os.environ[variable] = "false"
    try:
        with quiet():
            return mlflow.pytorch.load_model(str(folder)), ""
    except Exception as error:
        return None, f"it cannot be loaded: {redact_text(first_line(error))}"
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def takes(folder: Path) -> str:
    """``float32 pixels (1, 8, 8) in [0, 1]``, by the signature that serving holds callers to."""
    from mlflow.models import Model

    described = Model.load(str(folder))
    inputs = described.signature.inputs.inputs if described.signature else []
    if len(inputs) != 1 or "pixels" not in str(inputs[0].name):
        return "no pixels, by its signature"
    shape = tuple(inputs[0].shape)
    free = shape[0] == -1
    return f"{inputs[0].type.name} pixels {shape[1:]} in [0, 1]" + ("" if free else f", {shape[0]} at a time")


def requirements() -> list[str]:
    """What the graph and the files need, without a build suffix (+cpu, +cu128): package indexes have none."""
    return [f"{package}=={version(package).split('+')[0]}" for package in _PACKAGES]


def files_in(folder: Path) -> Path | None:
    """The folder that holds ``FILES``: an MLflow model's extra files, or ``folder`` itself."""
    places = (folder / EXTRA, folder)
    return next((place for place in places if all((place / file).is_file() for file in FILES)), None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's and MLflow's remarks about themselves; errors rise all the same."""
    noisy = [logging.getLogger(name) for name in ("torch.export", "torch._dynamo", "torch.fx", "mlflow")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for module in ("torch", "mlflow", "copyreg", "timm"):
                warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)

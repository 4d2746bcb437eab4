"""Short trainings by the command line, and what they leave."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from pipelines.cli import OK, main

SHORT = ("epochs=2", "model.arguments.blocks=1", "model.arguments.width=8", "evaluation.attack.steps=5")


def train(folder: Path, uri: str, *overrides: str, code: int = OK) -> dict:
    """The outcome of a short run."""
    folder.mkdir(exist_ok=True)
    out = folder / "outcome.json"
    arguments = ["train", *SHORT, f"tracking.uri={uri}", f"storage={folder / 'runs'}", f"--json={out}", *overrides]
    assert main(arguments) == code
    return json.loads(out.read_text()) if out.exists() else {}


def weights(folder: Path, outcome: dict) -> dict[str, torch.Tensor]:
    (last,) = sorted((folder / "runs" / outcome["run_name"]).glob("checkpoint_*/model/weights.safetensors"))[-1:]
    return load_file(last)


def metric_steps(uri: str, run_id: str, name: str) -> list[int]:
    from mlflow import MlflowClient

    return [m.step for m in MlflowClient(uri).get_metric_history(run_id, name)]

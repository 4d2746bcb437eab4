"""What a run leaves: the same facts as lines for a person, Markdown for its MLflow page, and JSON for a script."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import Misuse

SHOWN = 5
"""Names of corrupt images to print."""


@dataclass(frozen=True)
class Outcome:
    """``metrics``: of the test split; ``validation``: of the alarm's images, empty without it; ``cost``: in standard
    steps (forward and backward once) and in seconds."""

    run_id: str
    run_name: str
    tracking_uri: str
    registered_as: str | None
    version: int | None
    threat: str
    attack: str
    metrics: dict[str, float]
    validation: dict[str, float]
    cost: dict[str, Any]
    ended: str
    doubts: list[str]
    skipped: dict[str, int]
    storage: str


def lines(outcome: Outcome) -> list[str]:
    m, c = outcome.metrics, outcome.cost
    said = [
        f"{outcome.run_name}: {outcome.ended}; on {m['test_examples']:.0f} test images clean accuracy "
        f"{m['clean_accuracy']:.3f}, robust accuracy {m['robust_accuracy']:.3f} ({outcome.threat}, {outcome.attack}), "
        f"mean L1 input gradient {m['gradient_l1']:.2f}; {c['standard_steps']:,.0f} standard steps in "
        f"{c['train_seconds']:.0f} s"
    ]
    if outcome.skipped:
        some = ", ".join(list(outcome.skipped)[:SHOWN])
        said.append(f"note: {len(outcome.skipped)} corrupt images were skipped: {some}")
    if outcome.version is not None:
        said.append(f"registered: models:/{outcome.registered_as}/{outcome.version}")
    return said


def markdown(outcome: Outcome) -> str:
    """The description of the run's page."""
    m, c = outcome.metrics, outcome.cost
    rows = {
        "clean accuracy": f"{m['clean_accuracy']:.3f}",
        f"robust accuracy ({outcome.threat}, {outcome.attack})": f"{m['robust_accuracy']:.3f}",
        "test images": f"{m['test_examples']:.0f}",
        "mean L1 input gradient": f"{m['gradient_l1']:.2f}",
        "cost": f"{c['standard_steps']:,.0f} standard steps ({c['standard_steps_a_step']:.2f} a step), "
        f"{c['train_seconds']:.0f} s on {c['workers']} x {c['device']}",
        "ended": outcome.ended,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    doubts = "".join(f"\n\n**Warning:** {doubt}" for doubt in outcome.doubts)
    return f"| | |\n|---|---|\n{table}{doubts}"


def cell(text: str) -> str:
    """Class names and errors are anybody's: nothing of them is markup, a link, or calls anybody."""
    text = re.sub(r"([\\`*_{}\[\]()#!|~])", r"\\\1", re.sub(r"\s+", " ", text).replace("&", "&amp;"))
    for sign, harmless in (("<", "&lt;"), ("@", "&#64;"), ("://", ":&#8203;//"), ("www.", "www&#8203;.")):
        text = text.replace(sign, harmless)
    return text


def attack(node: Mapping[str, Any]) -> str:
    """``PGD-50``, with its restarts if there are any."""
    name = str(node["_target_"]).split(".")[-1]
    steps, restarts = node.get("steps"), node.get("restarts", 1)
    return f"{name}{f'-{steps}' if steps else ''}{f' x {restarts} restarts' if restarts > 1 else ''}"


def check(path: str | None, asked: str = "--json ") -> None:
    """``Misuse`` for a file that could not be written in the end; ``asked``: how the command line names it."""
    if path and not os.access(Path(path).absolute().parent, os.W_OK):
        raise Misuse(f"{asked}{path}: its folder is not there or not writable; make it first")


def leave(outcome: Outcome | Mapping[str, Any], path: str | None) -> None:
    """Write the outcome to ``path`` as JSON, whole or not at all."""
    plain = dict(outcome) if isinstance(outcome, Mapping) else asdict(outcome)
    if path:
        partial = Path(f"{path}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(plain, indent=2) + "\n")
        os.replace(partial, path)

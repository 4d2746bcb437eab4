"""What is known of a registered version: its artefact, and what an evaluation of it left."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines import compose
from pipelines.evaluation import records
from pipelines.evaluation.joining import said
from pipelines.promotion.artefact import Artefact

_VOLATILE = ("date", "command", "git", "cost", "storage", "tracking_uri", "hardware", "beside")
"""Of an evaluation: what says where and when, not what was found."""


@dataclass(frozen=True)
class Evidence:
    """``version``: ``name/3``.  ``attack``, ``beyond``: what attacked it.  ``ids, labels: (n,)``; ``clean``, and
    ``autoattack`` and ``robust`` by threat, ``(n,) bool``: right; right after AutoAttack; right after the attacks
    beyond it too.  ``doubts``: None where none were looked for.  ``digest``: of what the evaluation found."""

    version: str
    artefact: Artefact
    network: str
    attack: Mapping[str, Any]
    beyond: tuple[str, ...]
    data: str
    classes: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    clean: np.ndarray
    autoattack: Mapping[str, np.ndarray]
    robust: Mapping[str, np.ndarray]
    doubts: tuple[str, ...] | None
    digest: str


def evidence(version: str, artefact: Artefact, found: Mapping[str, Any]) -> Evidence:
    """From what ``holdfast evaluate`` returned, and the records it left beside it."""
    rows = records.read(found["storage"])
    columns = rows.columns
    threats = {said(threat): places for threat, places in rows.threats.items()}
    every = next(iter(threats.values()))
    beyond = found["threats"][0]["beyond"]
    return Evidence(
        version=version,
        artefact=artefact,
        network=found["model"]["digest"],
        attack={key: found["attack"][key] for key in ("name", "version", "mode", "seed")},
        beyond=tuple(attack["name"] for attack in beyond["attacks"]) if beyond else (),
        data=found["data"]["digest"],
        classes=tuple(map(str, found["data"]["classes"])),
        ids=columns["id"][every],
        labels=columns["label"][every],
        clean=columns["attack"][every] != records.WRONG,
        autoattack={name: columns["robust"][places] for name, places in threats.items()},
        robust={
            name: (columns["robust_beyond" if beyond else "robust"][places]).astype(bool)
            for name, places in threats.items()
        },
        doubts=tuple(doubt["name"] for doubt in found["doubts"]) if found["checked"] else None,
        digest=compose.digest(json.loads(json.dumps({k: v for k, v in found.items() if k not in _VOLATILE}))),
    )

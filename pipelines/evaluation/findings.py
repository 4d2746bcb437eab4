"""From the ledger of an evaluation to what it found: one plain dict, and a record of every example."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import psutil
import torch
from torch import Tensor

from pipelines.sources import Candidate
from trainers.attacks.cascade import Cascade
from trainers.data.held_out import HeldOut
from trainers.evaluation.doubts import Tally
from trainers.evaluation.intervals import wilson
from trainers.evaluation.ledger import Ledger
from trainers.evaluation.piece import Piece
from trainers.threat import Threat

PACKAGES = ("holdfast", "torch", "timm", "numpy")


@dataclass(frozen=True)
class Chain:
    """A threat, the cascade that robust accuracy is under, and that with the attacks beyond it, which are its last."""

    threat: Threat
    attack: Cascade
    whole: Cascade

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.whole.members]

    @property
    def length(self) -> int:
        return len(self.attack.members)


def share(right: Tensor) -> dict[str, Any]:
    """Of ``right: (n,) bool`` the accuracy with its 95 % Wilson interval."""
    n, count = len(right), int(right.sum())
    return {"accuracy": count / n, "interval": list(wilson(count, n)), "n": n, "right": count}


def threats(ledger: Ledger, chains: Sequence[Chain], exam: HeldOut) -> list[dict[str, Any]]:
    return [_threat(ledger, number, chain, exam) for number, chain in enumerate(chains)]


def _threat(ledger: Ledger, number: int, chain: Chain, exam: HeldOut) -> dict[str, Any]:
    robust = ledger.robust(number, chain.length)
    attacks = list(_attacks(ledger, number, chain))
    beyond = attacks[chain.length :]
    return {
        "norm": chain.threat.norm,
        "eps": chain.threat.eps,
        "attacks": attacks[: chain.length],
        "robust": share(robust),
        "beyond": {"attacks": beyond, "robust": share(ledger.robust(number))} if beyond else None,
        "per_class": list(_classes(exam, ledger.right, robust)),
    }


def _attacks(ledger: Ledger, number: int, chain: Chain) -> Iterator[dict[str, Any]]:
    left = int(ledger.right.sum())
    for place, name in enumerate(chain.names):
        fooled = int((ledger.fooled_by[number] == place).sum())
        cost = ledger.costs.get((number, name), Piece.empty(number, name)).cost
        yield {"name": name, "attacked": left, "fooled": fooled, "left": left - fooled, **cost}
        left -= fooled


def _classes(exam: HeldOut, right: Tensor, robust: Tensor) -> Iterator[dict[str, Any]]:
    for label, name in enumerate(exam.classes):
        mine = exam.labels == label
        n, held = int(mine.sum()), int(robust[mine].sum())
        interval = list(wilson(held, n)) if n else [0.0, 1.0]
        yield {"class": name, "n": n, "clean": int(right[mine].sum()), "robust": held, "interval": interval}


def tally(ledger: Ledger, number: int, chain: Chain) -> Tally:
    """What the doubts look at: what each attack was the first to fool, beyond AutoAttack too."""
    fooled = {row["name"]: row["fooled"] for row in _attacks(ledger, number, chain)}
    return Tally(
        n=len(ledger.ids),
        clean_right=int(ledger.right.sum()),
        fooled=fooled,
        outside=ledger.outside[number],
        non_finite=int((~ledger.finite).sum()),
    )


def records(ledger: Ledger, chains: Sequence[Chain], exam: HeldOut) -> Iterator[dict[str, Any]]:
    """A row an example and threat, in the columns of ``pipelines.evaluation.records``."""
    for number, chain in enumerate(chains):
        by, whole = ledger.by(number, chain.length), ledger.by(number)
        missed = [stands == "" for stands in by]  # by the attack itself, whatever one beyond it found
        for row, (i, label) in enumerate(zip(exam.ids.tolist(), exam.labels.tolist(), strict=True)):
            record = {
                "id": i,
                "name": exam.name(row),
                "label": label,
                "clean": int(ledger.clean[row]),
                "norm": chain.threat.norm,
                "eps": chain.threat.eps,
                "robust": missed[row],
                "attacked": int(ledger.clean[row] if missed[row] else ledger.attacked[number, row]),
                "attack": by[row],
                "distance": 0.0 if missed[row] else float(ledger.distance[number, row]),
            }
            if chain.length < len(chain.names):
                record["attack_beyond"] = whole[row] if by[row] == "" else ""
                record["robust_beyond"] = whole[row] == ""
            yield record


def about_model(candidate: Candidate) -> dict[str, Any]:
    return {
        "source": candidate.source,
        "title": candidate.title,
        "digest": candidate.digest,
        "architecture": candidate.architecture,
        "parameters": candidate.parameters,
        "run_id": candidate.run_id,
        "version": f"{candidate.version[0]}/{candidate.version[1]}" if candidate.version else None,
        "stated_clean_accuracy": candidate.stated_clean_accuracy,
    }


def about_data(config: Mapping[str, Any], exam: HeldOut, ledger: Ledger) -> dict[str, Any]:
    return {
        "name": str(config["data"]["source"]["_target_"]).split(".")[-1].lower(),
        "split": "test",
        "digest": exam.digest,
        "n": len(exam),
        "of": exam.of,
        "classes": list(exam.classes),
        "input_size": list(exam.input_size),
        "non_finite": [exam.name(row) for row in (~ledger.finite).nonzero()[:, 0].tolist()],
        "corrupt": dict.fromkeys(ledger.corrupt.values(), 1),
    }


def cost(ledger: Ledger, workers: int, device: str) -> dict[str, Any]:
    """Forwards and backwards of single examples, and ``seconds``, of the attacks; summed over workers and all times the
    evaluation was started."""
    spent = [piece.cost for piece in ledger.costs.values()]
    totals = {name: sum(each[name] for each in spent) for name in ("forwards", "backwards", "seconds")}
    return {**totals, "workers": workers, "device": device}


def machine(_: Any = None) -> dict[str, Any]:
    """Where this process runs: asked of an evaluator."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{psutil.cpu_count()} x {_processor()}"
    return {
        "versions": {**{package: _version(package) for package in PACKAGES}, "python": platform.python_version()},
        "hardware": name,
        "numerics": {
            "dtype": "float32",
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package).split("+")[0]
    except Exception:
        return "unknown"

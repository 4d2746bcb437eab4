"""The plain tables of a report: attack by attack, published numbers beside ours, cost, and how to reproduce it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.report import words

MODES = {
    "fast": "fast: random numbers by image, so no verdict depends on the batch",
    "reference": "reference: random numbers as the attacks' authors draw them, batch by batch",
}


@dataclass(frozen=True)
class AttackRow:
    """``kind``: clean, attack, total or beyond."""

    kind: str
    name: str
    attacked: str
    fooled: str
    left: str
    forwards: str
    seconds: str


@dataclass(frozen=True)
class AttackTable:
    threat: str
    rows: tuple[AttackRow, ...]


@dataclass(frozen=True)
class Published:
    """A row of a suite, ours or another's; shares in percent."""

    name: str
    clean: str
    robust: str
    ours: bool


def attacks(evaluation: Mapping[str, Any]) -> list[AttackTable]:
    return [
        AttackTable(words.threat(threat["norm"], threat["eps"]), tuple(_attacks(evaluation, threat)))
        for threat in evaluation["threats"]
    ]


def _attacks(evaluation: Mapping[str, Any], threat: Mapping[str, Any]) -> Iterator[AttackRow]:
    clean, robust = evaluation["clean"], threat["robust"]
    wrong = words.count(clean["n"] - clean["right"])
    yield AttackRow("clean", "as it is", words.count(clean["n"]), wrong, words.count(clean["right"]), "", "")
    for attack in threat["attacks"]:
        yield _attack("attack", attack)
    forwards = words.count(sum(attack["forwards"] for attack in threat["attacks"]))
    seconds = words.duration(sum(attack["seconds"] for attack in threat["attacks"]))
    fooled, left = words.count(clean["right"] - robust["right"]), words.count(robust["right"])
    yield AttackRow("total", evaluation["attack"]["name"], words.count(clean["right"]), fooled, left, forwards, seconds)
    for attack in (threat.get("beyond") or {"attacks": ()})["attacks"]:
        yield _attack("beyond", attack)


def _attack(kind: str, attack: Mapping[str, Any]) -> AttackRow:
    attacked, fooled, left, forwards = (words.count(attack[key]) for key in ("attacked", "fooled", "left", "forwards"))
    return AttackRow(kind, attack["name"], attacked, fooled, left, forwards, words.duration(attack["seconds"]))


def published(evaluation: Mapping[str, Any]) -> list[Published]:
    """The suite's rows and ours, the most robust first; none where it has no rows, or its threat was not evaluated."""
    suite, threat = evaluation.get("suite"), judged(evaluation)
    if not suite or not suite["published"] or threat is None:
        return []
    rows = [
        (row["robust"], Published(row["name"], _points(row["clean"]), _points(row["robust"]), False))
        for row in suite["published"]
    ]
    share, clean = 100 * threat["robust"]["accuracy"], 100 * evaluation["clean"]["accuracy"]
    rows.append((share, Published(evaluation["model"]["source"], _points(clean), _points(share), True)))
    return [row for _, row in sorted(rows, key=lambda pair: (-pair[0], not pair[1].ours, pair[1].name))]


def judged(evaluation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The threat the suite is about: of its ``norm`` and ``eps`` where it names them, else the first."""
    suite, threats = evaluation.get("suite") or {}, evaluation["threats"]
    if "norm" not in suite:
        first: Mapping[str, Any] = threats[0]
        return first
    same = (one for one in threats if one["norm"] == suite["norm"] and math.isclose(one["eps"], suite["eps"]))
    return next(same, None)


def _points(percent: float) -> str:
    return f"{percent:.2f}"


def cost(evaluation: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What, how much, and how much an image."""
    spent, n = evaluation["cost"], evaluation["clean"]["n"]
    return [
        ("time, all workers", words.duration(spent["seconds"]), f"{words.duration(spent['seconds'] / n)} an image"),
        *((what, words.count(spent[what]), f"{words.count(spent[what] / n)} an image")
          for what in ("forwards", "backwards")),
        ("workers", words.count(spent["workers"]), f"on {spent['device']}"),
    ]  # fmt: skip


def reproduction(evaluation: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything a second evaluation has to share with this one: groups of (what, value)."""
    return [
        ("Model", list(_model(evaluation["model"]))),
        ("Data", list(_data(evaluation["data"]))),
        ("Evaluation", list(_protocol(evaluation))),
        ("Software and hardware", list(_platform(evaluation))),
    ]


def _model(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "source", model["source"]
    yield "sha256", model["digest"]
    yield "architecture", model["architecture"]
    yield "parameters", words.count(model["parameters"])
    if model.get("run_id"):
        yield "run", model["run_id"]
    if model.get("version"):
        yield "version", model["version"]
    if model.get("stated_clean_accuracy") is not None:
        yield "clean accuracy its run states", f"{100 * model['stated_clean_accuracy']:.2f}{words.NBSP}%"


def _data(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", f"{data['name']}, {data['split']}"
    yield "images", f"{data['n']:,} of {data['of']:,}"
    yield "classes", words.count(len(data["classes"]))
    yield "size", " × ".join(str(side) for side in data["input_size"])
    yield "digest", data["digest"]


def _protocol(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    attack = evaluation["attack"]
    yield "name", evaluation["name"]
    yield "date", words.moment(evaluation["date"])
    yield "attack", attack["name"]
    yield "version", attack["version"]
    yield "mode", MODES.get(attack["mode"], attack["mode"])
    yield "seed", str(attack["seed"])
    yield "batch size", words.count(attack["batch_size"])


def _platform(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from evaluation["versions"].items()
    yield "hardware", evaluation["hardware"]
    for name, value in evaluation["numerics"].items():
        yield name.replace("_", " "), words.fact(value)

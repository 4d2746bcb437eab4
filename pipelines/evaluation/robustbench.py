"""An evaluation of a RobustBench suite as that benchmark takes it: one ``model_info`` JSON."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.build import nearest
from pipelines.errors import Misuse
from pipelines.evaluation.radius import written

NAME = "model_info.json"
NORMS = ("Linf", "L2")
REPOSITORY = "https://github.com/RobustBench/robustbench"
_TEXTS = {
    "link": "address of the paper",
    "name": "title of the paper",
    "authors": "as they stand on the paper, with commas",
    "venue": "such as ICML 2020",
    "architecture": "as the paper calls it",
    "reported": "robust accuracy that the paper states, in percent",
    "footnote": "what a reader of the table must know",
}
SUBMISSION = {
    **_TEXTS,
    "additional_data": "whether more images than the training set were used: true or false",
    "number_forward_passes": "forward passes a prediction takes",
}
"""What only the submitter knows: settings below ``submission``."""


def model_info(evaluation: Mapping[str, Any], **given: Any) -> tuple[dict[str, Any], list[str]]:
    """``(fields, notes)``: RobustBench's fields in its order, and what the submitter must still see to.

    ``evaluation``: what ``evaluation.json`` holds; its ``suite`` says what is asked for: ``dataset``, ``norm``,
    ``eps``, ``n``, ``classes``.  ``given``: settings of ``SUBMISSION``; what is not given, or None, stays empty and is
    noted.  Accuracies are in percent, to two digits.  ``external`` is the accuracy after attacks beyond AutoAttack,
    where they fool more; ``unreliable`` says that the evaluation has doubts, or
    did not look for any.

    Errors: ``Misuse`` for an evaluation that is not the suite's, and for unknown or unusable settings.
    Source: the files below model_info/ of RobustBench at commit 78fcc9e (2025-03-31), and "Adding a new model" of its
    README.
    """
    given = {key: value for key, value in given.items() if value is not None}
    suite = _suite(evaluation)
    threat = _judged(evaluation, suite)
    check(given)
    beyond = threat["beyond"]
    external = beyond is not None and beyond["robust"]["right"] < threat["robust"]["right"]
    text = {key: str(given.get(key) or "") for key in _TEXTS}
    fields = {
        "link": text["link"],
        "name": text["name"],
        "authors": text["authors"],
        "additional_data": given.get("additional_data", ""),
        "number_forward_passes": given.get("number_forward_passes", 1),
        "dataset": suite["dataset"],
        "venue": text["venue"],
        "architecture": text["architecture"] or evaluation["model"]["architecture"],
        "eps": written(suite["eps"]),
        "clean_acc": _percent(evaluation["clean"]),
        "reported": text["reported"],
        "autoattack_acc": _percent(threat["robust"]),
    }
    if external:
        fields["external"] = _percent(beyond["robust"])
    if footnote := _footnote(text["footnote"], beyond if external else None):
        fields["footnote"] = footnote
    fields["unreliable"] = bool(evaluation["doubts"]) or not evaluation["checked"]
    return fields, list(_notes(evaluation, suite, fields, given))


def write(fields: Mapping[str, Any], folder: str | Path) -> Path:
    """``folder/model_info.json``, whole or not at all."""
    path = Path(folder) / NAME
    partial = Path(f"{path}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def _suite(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    suite = evaluation.get("suite")
    if suite is None:
        raise Misuse("this evaluation is of no suite: RobustBench takes its own; evaluate with suite=NAME")
    if suite["norm"] not in NORMS:
        raise Misuse(f"suite={suite['name']}: RobustBench keeps no table for {suite['norm']}, only {', '.join(NORMS)}")
    return dict(suite)


def _judged(evaluation: Mapping[str, Any], suite: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the evaluation found at the suite's threat, after checking that it is the suite's."""
    name, data = suite["name"], evaluation["data"]
    if data["n"] != suite["n"]:
        raise Misuse(
            f"suite={name} is of {suite['n']} images, this evaluation judged {data['n']}: evaluate all of them, and "
            "nothing else"
        )
    if len(data["classes"]) != suite["classes"]:
        raise Misuse(
            f"suite={name} has {suite['classes']} classes, {data['name']} has {len(data['classes'])}: give the suite's "
            "own data"
        )
    if evaluation["attack"]["version"] != "standard":
        raise Misuse(
            f"attack.version={evaluation['attack']['version']}: suite={name} is judged by AutoAttack's standard "
            "version; evaluate with attack.version=standard"
        )
    for threat in evaluation["threats"]:
        if threat["norm"] == suite["norm"] and abs(threat["eps"] - suite["eps"]) < 1e-9:
            found: Mapping[str, Any] = threat
            return found
    there = ", ".join(f"{t['norm']} {written(t['eps'])}" for t in evaluation["threats"])
    raise Misuse(f"suite={name} is judged at {suite['norm']} {written(suite['eps'])}, this evaluation at {there}")


def check(given: Mapping[str, Any]) -> None:
    """``Misuse`` for settings below ``submission`` that are unknown or unusable."""
    for key, value in given.items():
        if value is None:
            continue
        if key not in SUBMISSION:
            raise Misuse(f"submission.{key} is unknown{nearest(key, list(SUBMISSION))}")
        if key == "additional_data" and not isinstance(value, bool):
            raise Misuse(f"submission.additional_data={value} must be true or false")
        if key == "number_forward_passes" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise Misuse(f"submission.number_forward_passes={value} must be a whole number of at least 1")


def _percent(share: Mapping[str, Any]) -> str:
    return f"{100 * share['right'] / share['n']:.2f}"


def _footnote(given: str, beyond: Mapping[str, Any] | None) -> str:
    if beyond is None:
        return given
    attacks = ", ".join(attack["name"] for attack in beyond["attacks"])
    ours = f"{_percent(beyond['robust'])}% robust accuracy is due to AutoAttack followed by {attacks}."
    return f"{given} {ours}".strip()


def _notes(
    evaluation: Mapping[str, Any], suite: Mapping[str, Any], fields: Mapping[str, Any], given: Mapping[str, Any]
) -> Iterator[str]:
    if empty := [key for key, value in fields.items() if value == ""]:
        wanted = "; ".join(f"submission.{key}: {SUBMISSION[key]}" for key in empty)
        yield f"still empty: {wanted}"
    for key in ("architecture", "number_forward_passes"):
        if not given.get(key):
            yield f"{key} is taken as {fields[key]}: say submission.{key} if RobustBench is to print another"
    if evaluation["attack"]["mode"] != "reference":
        yield (
            "reference=false draws other random numbers than RobustBench's own code, which moves a few verdicts; "
            "reference=true draws the same"
        )
    if corrupt := evaluation["data"].get("corrupt"):
        yield f"{len(corrupt)} images could not be decoded and count as wrong: repair them and evaluate again"
    if evaluation["doubts"]:
        names = ", ".join(doubt["name"] for doubt in evaluation["doubts"])
        yield f"unreliable is true because of: {names}"
    yield (
        f"submit it to {REPOSITORY} as model_info/{suite['dataset']}/{suite['norm']}/"
        "<Name><Year><FirstWordOfTitle>.json, with the model's definition and weights"
    )

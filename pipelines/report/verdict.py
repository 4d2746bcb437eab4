"""The top of a report: per threat, what was measured, how sure it is, and one paragraph that says it in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.report import words


@dataclass(frozen=True)
class Reading:
    """A measured share.  ``kind``: clean, robust or beyond; ``at, low, high``: where it stands, in percent."""

    kind: str
    label: str
    percent: str
    interval: str
    right: int
    n: int
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    threat: str
    other_unit: str
    robust: Reading
    readings: tuple[Reading, ...]
    sentences: tuple[str, ...]


def verdicts(evaluation: Mapping[str, Any]) -> list[Verdict]:
    """One a threat, in the order they were asked for."""
    return [_verdict(evaluation, threat) for threat in evaluation["threats"]]


def _verdict(evaluation: Mapping[str, Any], threat: Mapping[str, Any]) -> Verdict:
    norm, eps = threat["norm"], threat["eps"]
    readings = tuple(readings_of(evaluation, threat))
    sentences = tuple(_sentences(evaluation, threat))
    return Verdict(words.threat(norm, eps), words.in_other_unit(norm, eps), readings[1], readings, sentences)


def readings_of(evaluation: Mapping[str, Any], threat: Mapping[str, Any]) -> Iterator[Reading]:
    """Clean, after the attack, and after what was tried beyond it."""
    yield _reading("clean", "clean", evaluation["clean"])
    yield _reading("robust", evaluation["attack"]["name"], threat["robust"])
    if threat.get("beyond"):
        yield _reading("beyond", f"after {_names(threat['beyond'])} too", threat["beyond"]["robust"])


def _reading(kind: str, label: str, measured: Mapping[str, Any]) -> Reading:
    share, n = measured["accuracy"], measured["n"]
    low, high = measured["interval"]
    shown = words.percent(share, n), words.interval((low, high), n)
    return Reading(kind, label, *shown, measured["right"], n, 100 * share, 100 * low, 100 * high)


def _sentences(evaluation: Mapping[str, Any], threat: Mapping[str, Any]) -> Iterator[str]:
    clean, robust, attack = evaluation["clean"], threat["robust"], evaluation["attack"]["name"]
    images = words.counted(clean["n"], "image")
    if clean["right"] == 0:
        yield f"None of {images} is classified rightly as it is, so there was nothing to attack."
        return
    yield f"Of {images}, {clean['right']:,} {_be(clean['right'])} classified rightly as they are."
    whole = robust["right"] == clean["right"]
    subject = "None" if robust["right"] == 0 else "All" if whole and robust["right"] > 1 else f"{robust['right']:,}"
    yield (
        f"{subject} of these {_withstand(robust['right'])} every attack of {attack}, which may change "
        f"{words.reach(threat['norm'], threat['eps'])}."
    )
    bounds = words.interval(robust["interval"], robust["n"]).replace(" to ", " and ")
    yield f"Of images drawn like these, with 95{words.NBSP}% confidence, between {bounds} would withstand them."
    if threat.get("beyond"):
        yield _beyond(threat, attack)
    if evaluation["doubts"]:
        doubts = words.counted(len(evaluation["doubts"]), "open doubt")
        yield f"With {doubts}, an attack suited to this model may leave far fewer."


def _beyond(threat: Mapping[str, Any], attack: str) -> str:
    after = threat["beyond"]["robust"]
    more = threat["robust"]["right"] - after["right"]
    fools = f"fools {more:,} more and leaves {after['right']:,}" if more else "fools no other"
    share = words.percent(after["accuracy"], after["n"])
    return f"Apart from that number, {_names(threat['beyond'])}, which is not part of {attack}, {fools} ({share})."


def _names(beyond: Mapping[str, Any]) -> str:
    return " and ".join(attack["name"] for attack in beyond["attacks"])


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


def _withstand(number: int) -> str:
    return "withstands" if number <= 1 else "withstand"


def trust(evaluation: Mapping[str, Any]) -> str:
    """One sentence on the doubts, beside the numbers: open ones, none of those looked for, or none looked for."""
    doubts, checked = evaluation["doubts"], evaluation["checked"]
    if doubts:
        them = "it is" if len(doubts) == 1 else "they are"
        return f"{words.counted(len(doubts), 'open doubt')}: until {them} settled, no robust accuracy here is proven."
    if checked:
        return f"No doubts: {words.counted(len(checked), 'sign')} of a misleading number looked for, none seen."
    return "Nothing was done to find out whether these numbers mislead: they are not proven."


def proven(evaluation: Mapping[str, Any]) -> bool:
    """Whether the numbers may look so: doubts were looked for, and none is open."""
    return bool(evaluation["checked"]) and not evaluation["doubts"]

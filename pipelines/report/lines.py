"""What the terminal prints when an evaluation ends."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.report import verdict, words
from pipelines.report.page import corrupt


def lines(evaluation: Mapping[str, Any]) -> list[str]:
    """Plain text, with no markup of any console: what was evaluated, a row a measured share, doubts, cost."""
    return [line.replace(words.NBSP, " ").rstrip() for line in _lines(evaluation)]


def _lines(evaluation: Mapping[str, Any]) -> Iterator[str]:
    data, attack, cost = evaluation["data"], evaluation["attack"], evaluation["cost"]
    yield (
        f"{evaluation['model']['source']} on {data['name']} {data['split']}, {data['n']:,} of {data['of']:,} images, "
        f"{attack['name']}, {attack['mode']} mode, seed {attack['seed']}"
    )
    yield from _rows(evaluation)
    for threat in evaluation["threats"]:
        everything = [*threat["attacks"], *(threat.get("beyond") or {"attacks": ()})["attacks"]]
        fooled = ", ".join(f"{one['name']} {one['fooled']:,}" for one in everything)
        yield f"{words.threat(threat['norm'], threat['eps'])} fooled by: {fooled}"
    if damaged := corrupt(data):
        yield f"note: {damaged}"
    yield f"{'' if verdict.proven(evaluation) else 'warning: '}{verdict.trust(evaluation)}"
    for doubt in evaluation["doubts"]:
        yield f"  {doubt['name']}: {doubt['explanation']}"
    yield (
        f"cost: {words.count(cost['forwards'])} forwards, {words.count(cost['backwards'])} backwards, "
        f"{words.duration(cost['seconds'])} of work on {words.counted(cost['workers'], 'worker')} ({cost['device']})"
    )


def _rows(evaluation: Mapping[str, Any]) -> Iterator[str]:
    head = ("threat", "", "accuracy", "95 % interval", "right", "n")
    rows = [head]
    for v in verdict.verdicts(evaluation):
        for i, r in enumerate(v.readings):
            rows.append(("" if i else v.threat, r.label, r.percent, r.interval, f"{r.right:,}", f"{r.n:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        cells = (text.ljust(width) if i < 2 else text.rjust(width)
                 for i, (text, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        yield "  ".join(cells)

"""A model card in the manner of Hugging Face: YAML front matter with the metrics, then Markdown."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipelines.report import tables, verdict, words
from pipelines.report.page import corrupt


def card(evaluation: Mapping[str, Any]) -> str:
    """The numbers of the page.  The front matter holds shares in [0, 1], the text percents."""
    parts = [
        _front(evaluation),
        *_verdict(evaluation),
        *_doubts(evaluation),
        *_attacks(evaluation),
        *_suite(evaluation),
    ]
    return "\n".join([*parts, *_evaluation(evaluation)]).replace(words.NBSP, " ") + "\n"


def _front(evaluation: Mapping[str, Any]) -> str:
    """Scalars are written as JSON, which is YAML, so that no name can end the front matter."""
    data = {key: _scalar(evaluation["data"][key]) for key in ("name", "split")}
    metrics = [_metric("Clean accuracy", evaluation["clean"])]
    for threat in evaluation["threats"]:
        at = words.threat(threat["norm"], threat["eps"])
        for reading, measured in _measured(evaluation, threat):
            metrics.append(_metric(f"Robust accuracy, {at}, {reading.label}", measured))
    return "\n".join(
        (
            "---",
            "library_name: holdfast",
            "pipeline_tag: image-classification",
            "tags: [adversarial-robustness, image-classification]",
            "metrics: [accuracy]",
            "model-index:",
            f"- name: {_scalar(evaluation['model']['source'])}",
            "  results:",
            "  - task: {type: image-classification}",
            f"    dataset: {{name: {data['name']}, type: {data['name']}, split: {data['split']}}}",
            "    metrics:",
            *metrics,
            "---",
            "",
        )
    )


def _measured(
    evaluation: Mapping[str, Any], threat: Mapping[str, Any]
) -> Iterator[tuple[verdict.Reading, Mapping[str, Any]]]:
    """The robust readings of a threat with what they were made of."""
    for reading in list(verdict.readings_of(evaluation, threat))[1:]:
        yield reading, threat["robust"] if reading.kind == "robust" else threat["beyond"]["robust"]


def _metric(name: str, measured: Mapping[str, Any]) -> str:
    low, high = (round(bound, 6) for bound in measured["interval"])
    value = round(measured["accuracy"], 6)
    return (
        f"    - {{type: accuracy, name: {_scalar(name)}, value: {value}, "
        f"args: {{n: {measured['n']}, right: {measured['right']}, interval: [{low}, {high}]}}}}"
    )


def _scalar(text: str) -> str:
    return json.dumps("".join(letter if letter.isprintable() else " " for letter in str(text)), ensure_ascii=False)


def _verdict(evaluation: Mapping[str, Any]) -> Iterator[str]:
    data = evaluation["data"]
    yield f"# {_plain(evaluation['model']['source'])}\n"
    yield (
        f"{_plain(evaluation['model']['architecture'])}, {words.count(evaluation['model']['parameters'])} parameters, "
        f"evaluated by Holdfast on {_plain(data['name'])}, {_plain(data['split'])} split: {data['n']:,} of "
        f"{data['of']:,} images.\n"
    )
    yield "## Robustness\n"
    if not verdict.proven(evaluation):
        yield f"> **Warning.** {verdict.trust(evaluation)}\n"
    found = verdict.verdicts(evaluation)
    rows = [
        (
            v.threat,
            r.label,
            f"**{r.percent}**" if r.kind == "robust" else r.percent,
            r.interval,
            f"{r.right:,}",
            f"{r.n:,}",
        )
        for v in found
        for r in v.readings
    ]
    yield _table(("threat", "accuracy", "share", "95 % interval", "right", "n"), rows)
    for v in found:
        yield f"**{_plain(v.threat)}.** {_plain(' '.join(v.sentences))}\n"
    if damaged := corrupt(data):
        yield f"{_plain(damaged)}\n"


def _doubts(evaluation: Mapping[str, Any]) -> Iterator[str]:
    yield "## Doubts\n"
    yield f"{verdict.trust(evaluation)}\n"
    for doubt in evaluation["doubts"]:
        yield f"### {_plain(doubt['name'])}\n"
        yield f"{_plain(doubt['explanation'])}\n"
        if doubt["evidence"]:
            yield _table(
                ("evidence", "value"), [(what, words.fact(value)) for what, value in doubt["evidence"].items()]
            )
    if evaluation["checked"]:
        yield f"Looked for: {', '.join(_plain(name) for name in evaluation['checked'])}.\n"


def _attacks(evaluation: Mapping[str, Any]) -> Iterator[str]:
    yield "## Attack by attack\n"
    for table in tables.attacks(evaluation):
        yield f"### {_plain(table.threat)}\n"
        rows = [(_named(row), row.attacked, row.fooled, row.left, row.forwards, row.seconds) for row in table.rows]
        yield _table(("attack", "attacked", "fooled", "left", "forwards", "time"), rows)


def _named(row: tables.AttackRow) -> str:
    return f"{row.name} (beyond, apart)" if row.kind == "beyond" else row.name


def _suite(evaluation: Mapping[str, Any]) -> Iterator[str]:
    published = tables.published(evaluation)
    if not published:
        return
    suite = evaluation["suite"]
    yield "## Beside published numbers\n"
    yield (
        "Rows other than ours come from others' evaluations and were not measured here. "
        f"Source: {_plain(suite['source'])}, {_plain(suite['date'])}.\n"
    )
    rows = [(f"{row.name} (this card)" if row.ours else row.name, row.clean, row.robust)
            for row in published]  # fmt: skip
    yield _table(("model", "clean, %", "robust, %"), rows)


def _evaluation(evaluation: Mapping[str, Any]) -> Iterator[str]:
    yield "## Evaluation\n"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", evaluation["command"])), default=0))
    yield f"{fence}sh\n{evaluation['command']}\n{fence}\n"
    for title, facts in tables.reproduction(evaluation):
        yield f"### {title}\n"
        yield _table(("what", "value"), facts)
    yield "### Cost\n"
    yield _table(("what", "in all", "each"), tables.cost(evaluation))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [" | ".join(head), *(" | ".join(_cell(cell) for cell in row) for row in rows)]
    lines.insert(1, " | ".join("---" for _ in lines[0].split(" | ")))
    return "".join(f"| {line} |\n" for line in lines)


def _cell(text: str) -> str:
    bold = re.fullmatch(r"\*\*(.*)\*\*", text)
    return f"**{_plain(bold[1])}**" if bold else _plain(text)


def _plain(text: str) -> str:
    """As text in Markdown, on one line: nothing in it is a tag, a link, a cell or an emphasis."""
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#~]|(?<!\w)_|_(?!\w))", r"\\\1", text)

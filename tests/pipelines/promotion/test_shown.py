"""How a decision reads: on the terminal, as Markdown, as JSON; nothing that a class is named is markup."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from pipelines.promotion import shown
from pipelines.promotion.gate import Decision, decide
from tests.pipelines.promotion.by_hand import (
    LINF,
    champion,
    evidence,
    names,
    policy,
    wrong_in,
)

NASTY = "a|b<script>\n`c` \\d"


def nasty() -> Decision:
    """Refused, over a class whose name is all that a table and a page may stumble over."""
    found = evidence(clean=1, robust=1, l2=1, classes=(NASTY, "dog", "owl", "[red]yak[/red]"))
    low = wrong_in(found, label=0, count=250)
    last = wrong_in(found, label=3, count=200)
    return decide(replace(found, clean=low, robust={**found.robust, LINF: last}), champion(), policy())


@pytest.mark.parametrize("decision", [nasty(), decide(evidence(), None, policy())], ids=["refused", "passed"])
def test_markdown_has_a_row_a_clause(decision):
    text = shown.markdown(decision)
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith(("| ✅ |", "| ❌ |"))]
    assert len(rows) == len(decision.clauses)
    assert lines[-len(rows) :] == rows
    for line, said in zip(rows, decision.clauses, strict=True):
        assert line.startswith(f"| {'✅' if said.passed else '❌'} | {said.name} |")
        assert len(re.findall(r"(?<!\\)\|", line)) == 5
    assert lines[0] == f"### {'Passed' if decision.passed else 'Refused'}: pets/2"
    against = "Compared with the champion, pets/1." if decision.champion else "There is no champion yet."
    assert against in lines


def test_markdown_makes_no_markup_of_a_class_name():
    text = shown.markdown(nasty())
    assert r"worst a\|b&lt;script> \`c\` \\d: 0.0 %, 0 of 250" in text
    assert "<script" not in text
    assert not re.search(r"(?<!\\)`", text)


@pytest.mark.parametrize("name", ["[here](https://example.com)", "![](https://example.com/a.png)"])
def test_markdown_makes_no_link_of_a_class_name(name):
    found = evidence(classes=(name, "dog", "owl", "yak"), labels=np.arange(1000) % 3 + 1)
    assert not re.search(r"(?<!\\)\[[^\]]*(?<!\\)\]\(", shown.markdown(decide(found, None, policy())))


def test_the_terminal_shows_what_failed_and_takes_no_markup_from_a_name():
    page = io.StringIO()
    shown.show(nasty(), Console(file=page, width=250))
    out = page.getvalue()
    assert "pets/2: refused, against the champion, pets/1" in out
    lines = out.splitlines()
    assert any(re.match(r" *NO +clean accuracy, each class +at least 80\.0 % +worst a\|b<script>", li) for li in lines)
    assert any(re.match(r" *ok +served graph ", line) for line in lines)
    assert sum(line.split()[:1] == ["NO"] for line in lines) == len(nasty().failed)
    assert "[red]yak[/red]: 20.0 %" in out


def test_the_terminal_says_that_nobody_is_champion_yet():
    page = io.StringIO()
    shown.show(decide(evidence(), None, policy()), Console(file=page, width=200))
    assert "pets/2: passed, no champion is there yet" in page.getvalue()
    assert "NO" not in page.getvalue()


def test_a_plain_decision_is_one_for_json():
    plain = shown.plain(nasty())
    assert plain["passed"] is False
    assert [clause["name"] for clause in plain["clauses"]] == list(names(nasty()))
    assert all(type(clause["passed"]) is bool for clause in plain["clauses"])

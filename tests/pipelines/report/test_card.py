"""The model card and the lines of the terminal: the page's numbers, in Markdown, YAML and plain text."""

import re

import pytest
import yaml

from pipelines.report import card, lines
from tests.pipelines.report import samples
from tests.pipelines.report.test_page import hostile

SAMPLES = (samples.digits, samples.masked, samples.imagenet)


def front(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("\n---\n")[0][4:])


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_front_matter_holds_every_measured_share(sample):
    evaluation = sample()
    index = front(card(evaluation))["model-index"][0]
    assert index["name"] == evaluation["model"]["source"]
    result = index["results"][0]
    assert result["dataset"] == {
        "name": evaluation["data"]["name"],
        "type": evaluation["data"]["name"],
        "split": evaluation["data"]["split"],
    }
    measured = [evaluation["clean"]]
    for threat in evaluation["threats"]:
        measured += [threat["robust"], *([threat["beyond"]["robust"]] if threat["beyond"] else [])]
    assert [metric["value"] for metric in result["metrics"]] == [
        pytest.approx(one["accuracy"], abs=1e-6) for one in measured
    ]
    assert [metric["args"]["n"] for metric in result["metrics"]] == [one["n"] for one in measured]
    for metric, one in zip(result["metrics"], measured, strict=True):
        assert metric["args"]["interval"] == [pytest.approx(bound, abs=1e-6) for bound in one["interval"]]


def test_the_card_has_the_numbers_of_the_page():
    text = card(samples.digits())
    for said in (
        "| Linf eps 0.1 | AutoAttack standard | **83.6 %** | 76.2 to 89.0 % | 107 | 128 |",
        "| Linf eps 0.1 | clean | 99.2 % | 95.7 to 99.9 % | 127 | 128 |",
        "| Linf eps 0.1 | after malt too | 82.8 % | 75.3 to 88.4 % | 106 | 128 |",
        "| apgd-ce | 127 | 15 | 112 | 12,827 | 0.53 s |",
        "| malt (beyond, apart) | 107 | 1 | 106 |",
        "No doubts: 12 signs",
        "```sh\nholdfast evaluate model.source=models:/digits/1",
        "| clean accuracy its run states | 98.70 % |",
        "| forwards | 849,035 | 6,633 an image |",
    ):
        assert said in text
    assert "Warning" not in text
    assert "published" not in text


def test_doubts_warn_before_the_numbers_and_are_explained():
    text = card(samples.masked())
    assert text.index("> **Warning.** 3 open doubts") < text.index("**65.5 %**")
    assert "### zero gradients" in text
    assert "| images with a zero gradient | 187 |" in text
    assert "melanoma/0031.png" in text


def test_published_rows_are_cited():
    text = card(samples.imagenet())
    assert "| Standard\\_R50 | 76.52 | 0.00 |" in text or "| Standard_R50 | 76.52 | 0.00 |" in text
    assert "were not measured here" in text
    assert "2025-03-31" in text


def test_tables_have_as_many_cells_in_every_row():
    for sample in SAMPLES:
        rows = re.findall(r"(?:^\|.*\|\n)+", card(sample()), flags=re.MULTILINE)
        assert rows
        for table in rows:
            assert len({line.count(" | ") for line in table.splitlines()}) == 1


def test_hostile_names_stay_text():
    evaluation = hostile(samples.imagenet())
    evaluation["model"]["source"] = 'a\n---\nb: "c" | d\u2028🙂 <script>'
    evaluation["command"] = "holdfast evaluate ``` x"
    text = card(evaluation)
    assert front(text)["model-index"][0]["name"] == 'a --- b: "c" | d 🙂 <script>'
    body = text.split("\n---\n", 1)[1]
    assert "<script" not in body.replace("````sh", "")
    assert '# a --- b: "c" \\| d 🙂 &lt;script&gt;' in body
    assert "````sh\nholdfast evaluate ``` x\n````" in body


def test_lines_are_aligned_and_say_all_that_decides():
    said = lines(samples.digits())
    assert said[0].startswith(
        "models:/digits/1 on digits test, 128 of 540 images, AutoAttack standard, fast mode, seed 0"
    )
    table = said[1:5]
    assert len({len(line) for line in table}) == 1
    assert table[2].split() == ["AutoAttack", "standard", "83.6", "%", "76.2", "to", "89.0", "%", "107", "128"]
    assert "Linf eps 0.1 fooled by: apgd-ce 15, apgd-t 4, fab-t 0, square 1, malt 1" in said
    assert "No doubts: 12 signs of a misleading number looked for, none seen." in said
    assert "\u00a0" not in "".join(said)


def test_lines_warn_of_doubts():
    said = lines(samples.masked())
    assert "warning: 3 open doubts: until they are settled, no robust accuracy here is proven." in said
    assert any(line.startswith("  zero gradients: The loss of 187") for line in said)
    assert "note: 1 image could not be read and is counted as wrong: melanoma/0031.png." in said

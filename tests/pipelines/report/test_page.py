"""The page: whole, true to its evaluation, safe to open, and plain about what is not proven."""

import copy
import itertools
import json
import re
from typing import Any

import pytest

from pipelines.report import card, page
from tests.pipelines.report import samples
from tests.pipelines.report.reading import Page

SAMPLES = (samples.digits, samples.masked, samples.imagenet)


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, Any]]:
    return samples.pictures(count=4, steps=60)


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_tag_is_closed_in_its_turn_and_headings_descend_one_by_one(sample, pictures):
    read = Page(page(sample(), pictures))
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    named = {a["aria-labelledby"] for _, a in read.tags if "aria-labelledby" in a}
    assert named | {(a["href"] or "")[1:] for a in read.all("a") if (a["href"] or "").startswith("#")} <= set(ids)
    assert all(attributes.get("alt") for attributes in read.all("img"))
    assert all(attributes.get("aria-label") for _, attributes in read.tags if attributes.get("role") == "img")


def test_the_verdict_stands_with_its_interval_n_clean_accuracy_and_what_is_beyond():
    text = Page(page(samples.digits())).text
    verdict = text[text.index("Verdict") : text.index("Attack by attack")]
    for said in (
        "Linf eps 0.1 = 25.5/255",
        "83.6 % robust accuracy under AutoAttack standard",
        "95 % interval 76.2 to 89.0 %",
        "107 of n = 128",
        "clean 99.2 % 95.7 to 99.9 %",
        "after malt too 82.8 % 75.3 to 88.4 %",
        "Of 128 images, 127 are classified rightly as they are. 107 of these withstand every attack",
        "up to 0.1 (25.5 of 255 grey levels)",
        "Apart from that number, malt, which is not part of AutoAttack standard, fools 1 more and leaves 106",
        "No doubts: 12 signs",
    ):
        assert said in verdict


def test_every_number_of_the_evaluation_is_there():
    evaluation = samples.digits()
    text = Page(page(evaluation)).text
    threat = evaluation["threats"][0]
    for attack in [*threat["attacks"], *threat["beyond"]["attacks"]]:
        row = [f"{attack[key]:,.0f}" for key in ("attacked", "fooled", "left", "forwards")]
        assert " ".join([attack["name"], *row]) in text.replace("beyond, apart ", "")
    for one in threat["per_class"]:
        assert (
            f"{one['class']} {one['n']} {100 * one['clean'] / one['n']:.0f} % {100 * one['robust'] / one['n']:.0f} %"
            in text
        )
    for eps, accuracy in zip(evaluation["curves"][0]["eps"], evaluation["curves"][0]["accuracy"], strict=True):
        assert f"{eps:g} {100 * accuracy:.1f} %" in text
    model, data, attack, versions = (evaluation[key] for key in ("model", "data", "attack", "versions"))
    for value in (model["digest"], model["run_id"], model["version"], "98.70 %", "78,042", data["digest"], "1 × 8 × 8",
                  f"seed {attack['seed']}", "fast: random numbers by image", *versions.values(), evaluation["hardware"],
                  "float32", "tf32 convolutions yes", "tf32 matmul no", "2026-11-21 14:00 UTC", evaluation["command"],
                  evaluation["name"], "849,035", "424,518", "workers 2", *evaluation["checked"]):  # fmt: skip
        assert value in text


def test_doubts_are_warnings_beside_the_verdict_and_explained_below():
    evaluation = samples.masked()
    read = Page(page(evaluation))
    text = read.text
    top = text[text.index("Verdict") : text.index("Attack by attack")]
    assert "3 open doubts: until they are settled, no robust accuracy here is proven." in top
    assert "not proven" in top
    assert "With 3 open doubts, an attack suited to this model may leave far fewer." in top
    assert len(read.all("article", "doubted")) == 1
    assert len(read.all("div", "warning")) == 1
    assert len(read.all("article", "warning")) == 3
    assert text.startswith("In doubt: ")
    for doubt in evaluation["doubts"]:
        assert doubt["name"] in top
        assert doubt["explanation"] in text
    for evidence in ("images with a zero gradient 187", "largest gradient 3.2e-09", "layers stem.quantise, stem.pool"):
        assert evidence in text
    assert text.count("in doubt") == 3  # in the list of what was looked for
    assert "1 image could not be read and is counted as wrong: melanoma/0031.png." in top


def test_without_a_doubt_nothing_warns_and_unless_looked_for_nothing_is_proven():
    read = Page(page(samples.digits()))
    assert not [a for _, a in read.tags if {"warning", "doubted", "tag"} & set((a.get("class") or "").split())]
    assert "not proven" not in read.text
    unchecked = Page(page({**samples.digits(), "checked": []}))
    assert "Nothing was done to find out whether these numbers mislead: they are not proven." in unchecked.text
    assert unchecked.all("article", "doubted")
    assert "What was looked for" not in unchecked.text


def test_optional_parts_leave_no_hole():
    evaluation = samples.digits()
    bare = copy.deepcopy(evaluation)
    bare["curves"], bare["beside"] = [], None
    bare["threats"][0] |= {"beyond": None, "per_class": []}
    bare["model"] |= {"run_id": None, "version": None, "stated_clean_accuracy": None}
    text = Page(page(bare)).text
    for gone in (
        "Robustness curve",
        "Classes",
        "What the models see",
        "Beside published",
        "malt",
        "None",
        "Undefined",
        " run ",
    ):
        assert gone not in text
    for kept in ("Verdict", "Attack by attack", "Doubts", "Cost", "How to reproduce it", "83.6 %"):
        assert kept in text


def hostile(value: Any) -> Any:
    """Every text of an evaluation, replaced by one that would like to be a script."""
    if isinstance(value, dict):
        return {key: hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return (
        f"""</style><script>alert("{value}")</script>'"><img src=http://evil.example/x>"""
        if isinstance(value, str)
        else value
    )


def test_hostile_names_are_text(pictures):
    evaluation = hostile(samples.imagenet()) | {"date": "<b>now</b>"}
    evaluation["doubts"] = hostile(samples.masked()["doubts"])
    evaluation["data"]["corrupt"] = {"<script>.png": 2}
    shown = [{**one, "label": "<script>", "models": hostile_titles(one["models"])} for one in pictures]
    html = page(evaluation, shown)
    read = Page(html)
    assert "script" not in {tag for tag, _ in read.tags}
    assert "<script" not in html
    assert len(read.all("style")) == 1
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in read.all("img"))
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    assert '<script>alert("' in read.text


def hostile_titles(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    then = {False: None, True: '"><script>'}
    return [
        {**model, "title": '"><script>', "adversarial_prediction": then[model["adversarial"] is not None]}
        for model in models
    ]


@pytest.mark.parametrize("sample", SAMPLES)
def test_nothing_is_fetched(sample, pictures):
    html = page(sample(), pictures)
    read = Page(html)
    for tag, attributes in read.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        if tag != "a":
            assert (attributes.get("href") or "data:").startswith("data:")
    assert "url(" not in html
    assert "@import" not in html
    policy = next(a["content"] for a in read.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_published_rows_stand_beside_ours_with_their_source():
    evaluation = samples.imagenet()
    read = Page(page(evaluation))
    for row in evaluation["suite"]["published"]:
        assert f"{row['name']} {row['clean']:.2f} {row['robust']:.2f}" in read.text
    assert "come from others' evaluations and were not measured here" in read.text
    assert "RobustBench model_info, https://github.com/RobustBench/robustbench , 2025-03-31." in read.text
    assert {"https://github.com/RobustBench/robustbench"} == {a["href"] for a in read.all("a")}
    assert len(read.all("tr", "ours")) == 1
    assert "Ours is at Linf eps 2/255 on 5,000 of 50,000 images" in read.text


def test_a_suite_that_names_its_threat_is_compared_at_that():
    evaluation = samples.imagenet()
    evaluation["suite"] |= {"norm": "Linf", "eps": 4 / 255}
    ours = evaluation["threats"][1]["robust"]["accuracy"]
    text = Page(page(evaluation)).text
    assert "Ours is at Linf eps 4/255" in text
    assert f"this page {100 * evaluation['clean']['accuracy']:.2f} {100 * ours:.2f}" in text


@pytest.mark.parametrize("changed", [{"norm": "Linf", "eps": 0.5}, {"norm": "L1", "eps": 2.0}, {"published": []}])
def test_nothing_is_put_beside_numbers_of_another_threat_or_beside_none(changed):
    evaluation = samples.imagenet()
    evaluation["suite"] |= changed
    assert "Beside published numbers" not in page(evaluation)
    assert "Beside published numbers" not in card(evaluation)


def test_every_threat_and_class_count_has_its_place():
    text = Page(page(samples.imagenet())).text
    for threat in (
        "Linf eps 2/255 = 0.00784 42.",
        "Linf eps 4/255 = 0.0157 32.",
        "Linf eps 8/255 = 0.0314 14.",
        "L2 eps 2 22.",
    ):
        assert threat in text
    assert text.count("15 of the least robust classes") == 4
    assert text.count("5 of the most robust classes") == 4
    assert "2 classes, robust accuracy from 60 % to 71 %" in Page(page(samples.masked())).text


@pytest.mark.parametrize(
    ("right", "big", "bounds", "said"),
    [
        (0, "0.0 %", "0.0 to 2.9 %", "None of these withstands"),
        (128, "100.0 %", "97.1 to 100.0 %", "All of these withstand "),
    ],
)
def test_nothing_and_everything_have_intervals_too(right, big, bounds, said):
    one = samples.threat("Linf", 8 / 255, 128, 128, {"apgd-ce": 128 - right})
    read = Page(page(samples.evaluation(128, 540, 128, [one], ["0", "1"])))
    assert f"{big} robust accuracy under AutoAttack standard 95 % interval {bounds}" in read.text
    assert said in read.text
    assert "8 of 255 grey levels" in read.text
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", json.dumps(read.all("i", "span")))]
    assert min(widths) > 2.5


def test_a_model_that_is_never_right_was_not_attacked():
    one = samples.threat("L2", 0.5, 60, 0, {"apgd-ce": 0})
    text = Page(page(samples.evaluation(60, 60, 0, [one], ["a", "b"]))).text
    assert "None of 60 images is classified rightly as it is, so there was nothing to attack." in text
    assert "0 % robust accuracy under AutoAttack standard 95 % interval 0 to 6 %" in text

"""What is wrong with new data: each finding alone, and what is just not wrong."""

import pytest

from pipelines import parts, storage
from pipelines.errors import Misuse
from pipelines.retraining.findings import Checks, Reading, checks, findings
from pipelines.retraining.manifest import Manifest
from pipelines.retraining.reading import read
from tests.pipelines.retraining.sets import config, fill, png

ASKED = Checks(smallest=0.1, unreadable=0.01, read=None, new_classes=False)
LENIENT = Checks(smallest=0.1, unreadable=0.01, read=None, new_classes=True)
FINE = Reading(100, ())


def made(train: dict[str, int], test: dict[str, int] | None = None, unread: str = "") -> Manifest:
    return Manifest("a source", {}, {"train": train, "test": test or {}}, unread)


BEFORE = made({"cat": 100, "dog": 100}, {"cat": 30, "dog": 30})


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (BEFORE, []),
        (made({"cat": 11, "dog": 10}, {"cat": 3, "dog": 3}), []),
        (made({"cat": 100, "dog": 0}, {"cat": 30, "dog": 30}), ["train: no images any more of class dog"]),
        (made({"cat": 100}, {"cat": 30, "dog": 30}), ["train: no images any more of class dog"]),
        (made({"cat": 100, "dog": 100}, {"cat": 30}), ["test: no images any more of class dog"]),
        (
            made({"cat": 191, "dog": 9}, {"cat": 30, "dog": 30}),
            ["train: far fewer images of class dog (100 to 9)"],
        ),
        (
            made({"cat": 9, "dog": 10}, {"cat": 30, "dog": 30}),
            ["train: 19 images, where there were 200", "train: far fewer images of class cat (100 to 9)"],
        ),
        (
            made({"cat": 100, "dog": 100}, {"cat": 3, "dog": 2}),
            ["test: 5 images, where there were 60", "test: far fewer images of class dog (30 to 2)"],
        ),
        (
            made({"cat": 100, "dog": 100, "owl": 1, "yak": 1}, {"cat": 30, "dog": 30}),
            [
                "new classes: owl, yak, so that the champion cannot be compared; checks.new_classes=true takes them",
            ],
        ),
        (
            made({}, {"cat": 30, "dog": 30}),
            [
                "no training images",
                "train: no images any more of class cat, dog",
                "train: 0 images, where there were 200",
            ],
        ),
        (Manifest("a source", {}, {}, "no such column"), ["labels: no such column"]),
    ],
)
def test_each_finding_is_made_alone_and_not_at_its_edge(now, expected):
    assert findings(now, BEFORE, FINE, ASKED) == expected


def test_without_anything_to_compare_with_only_the_set_itself_counts():
    assert findings(made({"cat": 1}), None, FINE, ASKED) == []
    assert findings(made({}), None, FINE, ASKED) == ["no training images"]
    assert findings(made({}, unread="no labels"), None, Reading(0, ()), ASKED) == ["labels: no labels"]


def test_classes_may_be_added_where_that_is_asked_for_or_nothing_is_known_of_those_of_before():
    more = made({"cat": 100, "dog": 100, "owl": 1}, {"cat": 30, "dog": 30})
    assert findings(more, BEFORE, FINE, LENIENT) == []
    assert findings(more, made({}, unread="no labels"), FINE, ASKED) == []
    assert findings(BEFORE, made({"cat": 100, "dog": 100, "owl": 0}), FINE, ASKED) == []


@pytest.mark.parametrize(
    ("bad", "opened", "share", "wrong"),
    [(1, 100, 0.01, False), (2, 100, 0.01, True), (29, 100, 0.29, False), (0, 0, 0.0, False), (1, 1000, 0.0, True)],
)
def test_more_unreadable_images_than_may_be(bad, opened, share, wrong):
    asked = Checks(0.1, share, None, False)
    found = findings(BEFORE, BEFORE, Reading(opened, tuple(f"{k}.png (no bytes)" for k in range(bad))), asked)
    assert bool(found) is wrong
    if wrong:
        said = f"{bad} of {opened} images opened cannot be read, above checks.unreadable={share:g}: 0.png (no bytes)"
        assert found[0].startswith(said)


def test_of_many_names_some_are_shown():
    now = made({"cat": 100, "dog": 100, **{f"new{k}": 1 for k in range(7)}}, {"cat": 30, "dog": 30})
    assert "new4 and 2 more, so" in findings(now, BEFORE, FINE, ASKED)[0]


@pytest.fixture
def damaged(tmp_path):
    """Eight images to train on, of which two are broken, and two to test on."""
    place = fill(str(tmp_path))
    for name, content in (("owl/0", b""), ("owl/1", png(1)[:-30]), ("owl/2", png(2))):
        storage.write(f"{place}/train/{name}.png", content)
    return parts.source(config(place))


def test_images_that_cannot_be_decoded_are_named_with_why(damaged):
    found = read(damaged, None)
    assert found.opened == 10
    first, second = found.unreadable
    assert first == "train/owl/0.png (no bytes)"
    assert second.startswith("train/owl/1.png (")


@pytest.mark.parametrize(("most", "opened"), [(1000, 10), (10, 10), (9, 9), (6, 6), (5, 5), (1, 2)])
def test_so_many_are_opened_evenly_over_the_set_and_one_of_a_split_at_least(damaged, most, opened, monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(type(damaged.split("train")), "image", lambda self, i: seen.append(self.name(i)))
    assert read(damaged, most).opened == opened == len(set(seen))
    assert {name.partition("/")[0] for name in seen} == {"train", "test"}
    assert most == 1 or {name.split("/")[1] for name in seen} == {"cat", "dog", "owl"}


def test_a_set_without_a_test_split_is_read(tmp_path):
    for k in range(3):
        storage.write(f"{tmp_path}/cat/{k}.png", png(k))
    assert read(parts.source(config(str(tmp_path))), None).opened == 3


@pytest.mark.parametrize(
    ("setting", "value"),
    [("smallest", -0.1), ("smallest", 1.1), ("unreadable", 2), ("unreadable", float("nan")), ("read", 0)],
)
def test_numbers_out_of_range_are_refused(setting, value):
    node = {"smallest": 0.1, "unreadable": 0.01, "read": 1000, "new_classes": False}
    assert checks(node) == Checks(**node)
    with pytest.raises(Misuse, match=rf"checks\.{setting}={value:g} must be"):
        checks({**node, setting: value})

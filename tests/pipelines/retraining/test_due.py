"""Whether there is anything to do, and what exactly: over digests made by hand."""

from dataclasses import asdict, replace

import pytest

from pipelines.errors import Misuse
from pipelines.retraining import due
from pipelines.retraining.due import AGE, CODE, DATA, DAY, FALLEN, FIRST, FORCED, RECIPE, Made, Reason, When
from pipelines.retraining.plan import FORCED as FAR
from pipelines.retraining.plan import Plan, from_facts, plan
from pipelines.tracking.versions import Version

WAS = Made("a" * 64, "b" * 64, "c" * 64, since=1000.0)
NOW = replace(WAS, since=1000.0 + 10 * DAY)
ASKED = When(data=True, recipe=True, code=True, age_days=None)
OF = {DATA: "manifest", RECIPE: "recipe", CODE: "code"}


def kinds(*args, **kwargs) -> list[str]:
    return [reason.kind for reason in due.reasons(*args, **kwargs)]


def test_what_is_the_same_is_left_alone():
    assert due.reasons(WAS, NOW, ASKED) == []


@pytest.mark.parametrize("kind", OF)
def test_another_digest_is_a_reason_unless_it_is_not_to_be(kind):
    (reason,) = due.reasons(WAS, replace(NOW, **{OF[kind]: "d" * 64}), ASKED)
    was = getattr(WAS, OF[kind])[:10]
    assert reason == Reason(kind, f"new {kind}: dddddddddd, where the champion's is {was}")
    assert kinds(WAS, replace(NOW, **{OF[kind]: "d" * 64}), replace(ASKED, **{kind: False})) == []


@pytest.mark.parametrize("kind", OF)
def test_what_is_not_known_of_the_champion_is_a_reason(kind):
    (reason,) = due.reasons(replace(WAS, **{OF[kind]: None}), NOW, ASKED)
    assert reason == Reason(kind, f"which {kind} the champion comes from is not known")


def test_every_reason_is_told():
    old = When(True, True, True, age_days=9)
    assert kinds(Made(None, "x", "y", 1000.0), NOW, old, ["it fell", "that too"], forced=True) == [
        FORCED,
        DATA,
        RECIPE,
        CODE,
        AGE,
        FALLEN,
        FALLEN,
    ]
    assert kinds(WAS, NOW, ASKED, ["it fell"]) == [FALLEN]
    assert kinds(WAS, NOW, ASKED, forced=True) == [FORCED]


def test_without_a_champion_that_alone_is_told():
    assert kinds(None, NOW, When(False, False, False, None)) == [FIRST]
    assert kinds(None, NOW, ASKED, forced=True) == [FORCED, FIRST]


@pytest.mark.parametrize(("days", "expected"), [(None, []), (10, []), (9.999, [AGE]), (10.001, [])])
def test_a_champion_is_old_once_it_is_older(days, expected):
    assert kinds(WAS, NOW, replace(ASKED, age_days=days)) == expected


def test_a_version_says_what_it_was_made_of():
    def version(**tags: str) -> Version:
        return Version("digits", 3, 1_500, 2_500, None, "", tags, (), "")

    trained = {"recipe_digest": "r", "code_digest": "c"}
    assert due.made(version()) == Made(None, None, None, 1.5)
    assert due.made(version(**trained)) == Made(None, "r", "c", 1.5)
    retrained = {due.MANIFEST: "m", due.RECIPE_TAG: "as it was told", **trained}
    assert due.made(version(**retrained)) == Made("m", "as it was told", "c", 1.5)


@pytest.mark.parametrize(
    ("found", "turn"),
    [
        ([DATA], 0),
        ([FIRST], 0),
        ([CODE, AGE, FALLEN], 0),
        ([AGE], 7),
        ([FALLEN], 7),
        ([AGE, FALLEN], 7),
        ([FORCED], FAR + 2),
        ([FORCED, FIRST], FAR + 2),
        ([FORCED, DATA], FAR + 2),
    ],
)
def test_what_was_trained_on_before_is_trained_with_another_seed(found, turn):
    made = plan(NOW, "policy", None, [Reason(kind, "") for kind in found], champion=7, forced=2)
    assert made == Plan(NOW.manifest, NOW.recipe, NOW.code, "policy", None, turn)


def test_a_plan_is_another_one_if_anything_in_it_is():
    first = plan(NOW, "policy", "start", [Reason(AGE, "")], 7, 0)
    others = [replace(first, **{field: "other"}) for field in ("manifest", "recipe", "code", "policy", "start")]
    others += [replace(first, start=None), replace(first, turn=8)]
    assert len({each.digest for each in (first, *others)}) == 8
    assert [first.same_work(each) for each in others] == [False, False, False, False, True, True, True]


def test_a_plan_is_kept_in_a_record():
    first = plan(NOW, "policy", None, [], 0, 0)
    assert from_facts({"plan": asdict(first), "version": 3}) == first
    assert from_facts({"findings": "bad"}) is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [("age_days", 0), ("age_days", -1.5), ("fallen", -0.01), ("fallen", 1), ("fallen", float("nan"))],
)
def test_numbers_out_of_range_are_refused(setting, value):
    node = {"data": True, "recipe": False, "code": True, "age_days": 0.5, "fallen": 0.0}
    assert due.when(node) == When(True, False, True, 0.5)
    with pytest.raises(Misuse, match=rf"when\.{setting}={value:g} must be"):
        due.when({**node, setting: value})

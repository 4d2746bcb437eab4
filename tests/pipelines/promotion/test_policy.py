"""What a policy may ask, and what is said of one that asks for nonsense."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.compose import choices, compose, describe
from pipelines.errors import Misuse
from pipelines.promotion.policy import ANY, BETTER, NOT_WORSE, RULES, policy

SHIPPED = sorted(choices("policy"))


def node(clean: dict | None = None, robust: dict | None = None, **changes: Any) -> dict[str, Any]:
    bar = {"floor": 0.5, "class_floor": 0.25, "rule": NOT_WORSE, "margin": 0.02}
    return {
        "clean": {**bar, **(clean or {})},
        "robust": {**bar, **(robust or {})},
        "level": 0.05,
        "doubts": [],
        "digest": None,
        **changes,
    }


def test_a_policy_is_what_its_config_says():
    found = policy(node(clean={"floor": 0.9}, robust={"rule": BETTER}, doubts=["zero gradients"], digest="ab" * 32))
    assert (found.clean.floor, found.clean.class_floor, found.clean.rule, found.clean.margin) == (
        0.9,
        0.25,
        NOT_WORSE,
        0.02,
    )
    assert (found.robust.floor, found.robust.rule) == (0.5, BETTER)
    assert (found.level, found.doubts, found.data) == (0.05, ("zero gradients",), "ab" * 32)


@pytest.mark.parametrize("name", ["clean", "robust"])
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        *[
            (key, value, f"={value:g} must be in [0, 1]: a share of the images, such as 0.8")
            for key in ("floor", "class_floor")
            for value in (-0.01, 1.01, 80, float("nan"))
        ],
        ("rule", "beter", f"=beter is unknown; choose one of {', '.join(RULES)}"),
        *[
            ("margin", value, f"={value:g} must be in [0, 1): a share of the images, such as 0.02")
            for value in (-0.02, 1, 2, float("nan"))
        ],
    ],
)
def test_a_bar_out_of_range_is_misuse(name, key, value, said):
    with pytest.raises(Misuse) as error:
        policy(node(**{name: {key: value}}))
    assert str(error.value) == f"policy.{name}.{key}{said}"


@pytest.mark.parametrize("name", ["clean", "robust"])
def test_not_worse_needs_a_margin(name):
    with pytest.raises(Misuse) as error:
        policy(node(**{name: {"margin": 0}}))
    said = str(error.value)
    assert said.startswith(f"policy.{name}.rule=not_worse needs a margin above 0")
    assert said.endswith(f"set policy.{name}.margin=0.02, or policy.{name}.rule=better")


@pytest.mark.parametrize("level", [-0.05, 0, 0.5, 0.95, 5, float("nan")])
def test_a_level_out_of_range_is_misuse(level):
    with pytest.raises(Misuse) as error:
        policy(node(level=level))
    said = f"policy.level={level:g} must be in (0, 0.5): the share of errors accepted, such as 0.05"
    assert str(error.value) == said


def test_the_ends_of_the_ranges_are_accepted():
    for rule in (BETTER, ANY):
        policy(node(clean={"floor": 0, "class_floor": 1, "rule": rule, "margin": 0}, level=0.499))
    policy(node(robust={"floor": 1, "class_floor": 0, "rule": NOT_WORSE, "margin": 0.999}, level=1e-6))


@pytest.mark.parametrize("choice", SHIPPED)
def test_what_is_shipped_is_accepted(choice):
    config = compose("promote", ["name=x", f"policy={choice}"])
    found = policy(config["policy"])
    assert 0 < found.robust.floor < found.clean.floor <= 1
    assert 0 < found.robust.class_floor <= found.robust.floor
    assert NOT_WORSE in (found.clean.rule, found.robust.rule)
    assert found.data is None
    assert config["policy"]["evaluation"]
    assert len(describe(choices("policy")[choice])) > 15


def test_a_setting_on_the_command_line_goes_over_the_file():
    settings = ["policy=digits", "policy.robust.floor=0.8", "policy.clean.rule=any", "policy.doubts=[zero gradients]"]
    found = policy(compose("promote", ["name=x", *settings])["policy"])
    assert (found.robust.floor, found.clean.rule, found.doubts) == (0.8, ANY, ("zero gradients",))
    with pytest.raises(Misuse, match=r"policy\.robust\.flor: unknown setting; nearest: floor"):
        compose("promote", ["name=x", "policy.robust.flor=0.8"])


def mine(folder: Path, text: str) -> Path:
    (folder / "policy").mkdir()
    (folder / "policy" / "mine.yaml").write_text(f"# Mine.\n{text}")
    return folder


def test_a_users_own_policy_is_found_and_what_it_leaves_out_asks_for_little(tmp_path):
    recipes = mine(tmp_path, "evaluation: [data=digits, threats.Linf=0.1]\nrobust:\n  floor: 0.7\n  rule: better\n")
    found = policy(compose("promote", ["name=x", "policy=mine"], recipes)["policy"])
    assert (found.robust.floor, found.robust.rule, found.level) == (0.7, BETTER, 0.05)
    assert (found.clean.floor, found.clean.rule, found.clean.margin) == (0.0, NOT_WORSE, 0.02)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("robust:\n  flor: 0.7\n", "policy.robust.flor"),
        ("robustness: 0.7\n", "policy.robustness"),
        ("level: strict\n", "policy.level: Value 'strict'"),
    ],
)
def test_an_unknown_clause_in_a_users_own_policy_is_named(tmp_path, text, key):
    with pytest.raises(Misuse, match=re.escape(key)):
        compose("promote", ["name=x", "policy=mine"], mine(tmp_path, text))

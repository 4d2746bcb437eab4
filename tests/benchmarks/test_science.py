"""The benchmark of the science: its arms are the recipes', its statistics are right, and the whole of it runs."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import arms, science
from benchmarks.report import Rows

GOALS = {"gelu_minus_relu_robust", "smooth_minus_relu_robust", "gradnorm_over_at_robust"}


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def found(values: dict[str, list[float]]) -> science.Found:
    """Outcomes with these robust accuracies, one a seed; 0.5 for every other arm."""
    seeds = len(next(iter(values.values())))
    rest = {name: [0.5] * seeds for name in arms.ARMS}
    return {
        (name, seed): arms.Outcome(name, seed, 0.9, value, 1.0)
        for name, each in reversed((rest | values).items())
        for seed, value in enumerate(each)
    }


def claims(values: dict[str, list[float]]) -> dict[str, dict]:
    rows = Rows("")
    science.add_claims(rows, found(values))
    return {row["what"]: row for row in rows.rows}


@pytest.mark.parametrize(
    ("recipe", "arm"),
    [("digits_gradnorm", "gradnorm_gelu_3"), ("digits_pgd", "at_gelu_3"), ("digits_standard", "standard_gelu_3")],
)
def test_an_arm_is_its_recipe(recipe, arm):
    compose, parts = (pytest.importorskip(f"pipelines.{name}") for name in ("compose", "parts"))
    config = compose.compose("train", [f"recipe={recipe}", "seed=3"])
    ours = arms.settings(seed=3)
    theirs = parts.settings(config, classes=10)
    for name in ("epochs", "schedule", "seed", "accumulate", "clip_norm", "bf16", "channels_last"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert parts.objective(config) == arms.ARMS[arm].objective
    assert parts.attack(config, "evaluation") == arms.judge(arms.ARMS[arm].eps)

    images, theirs = arms.data(seed=3), parts.data(config)
    assert (images.batch_size, images.size("train"), images.augment, images.mixing) == (
        theirs.batch_size,
        theirs.size("train"),
        theirs.augment,
        theirs.mixing,
    )
    network = parts.network(config, theirs, arms.ARMS[arm].objective.second_order)
    assert network.spec == arms.network(arms.ARMS[arm], 3, images).spec
    assert config["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert config["optimizer"]["weight_decay"] == arms.WEIGHT_DECAY
    assert not config["ema"]


def test_arms_of_a_seed_start_alike():
    images = arms.data(seed=1)
    gelu, relu = (arms.network(arms.ARMS[f"gradnorm_{name}_7"], 1, images) for name in ("gelu", "relu"))
    for a, b in zip(gelu.state_dict().values(), relu.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other = arms.network(arms.ARMS["gradnorm_gelu_7"], 2, images)
    assert not torch.equal(next(gelu.parameters()), next(other.parameters()))


def test_differences_are_paired_by_seed():
    rows = claims({"gradnorm_gelu_7": [0.5, 0.6, 0.7], "gradnorm_relu_7": [0.2, 0.3, 0.4]})
    row = rows["gelu_minus_relu_robust"]
    assert (row["value"], row["spread"]) == pytest.approx((0.3, 0.0))
    assert row["interval"] == pytest.approx([0.3, 0.3])
    assert row["n"] == 3


def test_ratio_is_the_mean_of_the_seeds_ratios():
    row = claims({"gradnorm_gelu_3": [0.8, 0.9], "at_gelu_3": [0.8, 0.6]})["gradnorm_over_at_robust"]
    assert row["value"] == pytest.approx(1.25)
    assert row["spread"] == pytest.approx(0.5 / 2**0.5)
    assert row["interval"] == pytest.approx([1.25 - 12.7062 * 0.25, 1.25 + 12.7062 * 0.25], rel=1e-4)


def test_a_lost_arm_leaves_the_other_rows():
    rows = claims({"at_gelu_7": [0.0, 0.0]})
    assert rows["gradnorm_over_at_robust_7_blocks"]["value"] != rows["gradnorm_over_at_robust_7_blocks"]["value"]
    assert rows["smooth_minus_relu_robust"]["value"] == -0.5


def test_gradnorm_costs_two_thirds_of_adversarial_training():
    rows = Rows("")
    science.add_costs(rows)
    costs = {row["what"]: row["value"] for row in rows.rows}
    assert costs["gradnorm_over_at_cost"] == pytest.approx(2 / 3, abs=0.02)
    assert costs["gradnorm_over_peer_cost"] == pytest.approx(6 / 13, abs=0.02)


def test_all_of_it_runs(tmp_path, capsys):
    path = tmp_path / "rows.json"
    small = ["--seeds", "1", "--epochs", "1", "--examples", "128", "--processes", "1"]
    science.main([*small, "--json", str(path)])
    rows = {row["what"]: row for row in json.loads(path.read_text())}
    assert {what for what, row in rows.items() if row["goal"]} == GOALS
    for row in rows.values():
        assert {"what", "value", "n", "spread", "hardware", "versions", "date"} <= row.keys()
        assert row["n"] == 1
    for name in arms.ARMS:
        assert 0 <= rows[f"robust_{name}"]["value"] <= rows[f"clean_{name}"]["value"] <= 1
    out = capsys.readouterr().out
    assert f"{len(arms.ARMS)}/{len(arms.ARMS)} after" in out
    assert "PGD-50" in out
    assert "How to read it" in out

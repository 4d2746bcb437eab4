"""A search space: what it spans, how a sample becomes a command line, and what is no space."""

import pytest

from pipelines.errors import Misuse
from pipelines.search import space
from pipelines.search.space import Axis

NESTED = {"objective": {"weight": {"log": [0.1, 10]}, "threat": {"eps": {"uniform": [0, 0.2]}}}}


def test_axes_are_found_where_hydra_nests_them():
    found = space.axes({**NESTED, "model": {"activation": {"choice": ["gelu", None]}}}, "random")
    assert found == (
        Axis("objective.weight", "log", (0.1, 10)),
        Axis("objective.threat.eps", "uniform", (0, 0.2)),
        Axis("model.activation", "choice", ("gelu", None)),
    )
    assert space.size(found) is None
    assert space.size(found[2:]) == 2


@pytest.mark.parametrize(
    ("nodes", "algorithm", "message"),
    [
        ({}, "random", "search.space is empty"),
        ({"threat": {"eps": {"grid": [1]}}}, "grid", "search.space.threat.eps: each trial would be judged at its own"),
        ({"seed": {"grid": [1, 2]}}, "tpe", "search.space.seed.grid does not go with search.algorithm=tpe; use choice"),
        ({"seed": {"choice": [1, 2]}}, "grid", "search.space.seed.choice does not go with search.algorithm=grid"),
        ({"seed": {"choice": []}}, "tpe", "is empty or names a value twice"),
        ({"seed": {"choice": [1, 1]}}, "tpe", "is empty or names a value twice"),
        ({"ema": {"uniform": [1, 0]}}, "tpe", "is no range: give [low, high], two numbers"),
        ({"alarm": {"examples": {"choice": [8]}}}, "tpe", "would be judged by another alarm.examples, and the easiest"),
        ({"data": {"choice": ["digits"]}}, "tpe", "search.space.data: each trial would be judged by another data"),
        ({"data": {"split_seed": {"choice": [1]}}}, "tpe", "search.space.data.split_seed: each trial would be judged"),
        ({"data": {"source": {"size": {"choice": [1]}}}}, "tpe", "search.space.data.source.size: each trial"),
        ({"workers": {"choice": [1, 2]}}, "tpe", "search.space.workers: it says where and how a training runs"),
        ({"data": {"path": {"choice": ["a"]}}}, "tpe", "search.space.data.path: it says where and how a training runs"),
        ({"epochs": {"int": [1, 2.5]}}, "tpe", "search.space.epochs.int=[1, 2.5] must be whole numbers"),
        ({"epochs": {"int": [False, True]}}, "tpe", "is no range"),
        ({"ema": {"uniform": [0, 1, 2]}}, "tpe", "is no range"),
        ({"ema": {"uniform": ["a", "b"]}}, "tpe", "is no range"),
        ({"ema": {"log": [0, 1]}}, "tpe", "must begin above 0"),
        ({"ema": 3}, "tpe", "search.space.ema: say which values"),
        ({"ema": {"log": [1, 2], "uniform": [1, 2]}}, "tpe", "search.space.ema has log, uniform: give one"),
    ],
)
def test_what_spans_nothing_is_refused(nodes, algorithm, message):
    with pytest.raises(Misuse) as error:
        space.axes(nodes, algorithm)
    assert message in str(error.value)


def test_a_sample_is_written_as_a_command_line_would_be():
    sample = {"objective.weight": 1.23456789, "model.activation": None, "epochs": 3, "ema": 1e-7, "clip_norm": 2.0}
    said = ["clip_norm=2.0", "ema=1e-07", "epochs=3", "model.activation=null", "objective.weight=1.23456789"]
    assert space.overrides(sample) == said


def test_what_was_drawn_from_a_range_is_rounded_inside_it_and_what_was_given_is_not():
    axes = [Axis("a", "log", (0.1, 10)), Axis("b", "choice", (8 / 255,)), Axis("c", "uniform", (1, 1.23456))]
    sample = {"a": 1.23456789, "b": 8 / 255, "c": 1.23456}
    found = space.rounded(sample, [*axes, Axis("d", "int", (10000, 99999))])
    assert found == {"a": 1.235, "b": 8 / 255, "c": 1.23456}
    assert float(space.overrides(found)[1].removeprefix("b=")) == 8 / 255
    assert space.rounded({"d": 12345}, [Axis("d", "int", (10000, 99999))]) == {"d": 12345}
    assert space.axes({"data": {"mixing": {"alpha": {"choice": [1]}}}}, "tpe")


def test_every_listed_value_and_both_ends_are_tried():
    tried = []

    def compose(lines):
        tried.append(list(lines))
        if "ema=2.0" in lines:
            raise Misuse("ema=2 must be in (0, 1)")

    axes = [Axis("seed", "choice", (1, 2, 3)), Axis("ema", "uniform", (0.5, 2.0))]
    with pytest.raises(Misuse, match=r"^search\.space\.ema: ema=2 must be"):
        space.check(axes, compose)
    assert tried == [["ema=0.5", f"seed={seed}"] for seed in (1, 2, 3)] + [["ema=0.5", "seed=1"], ["ema=2.0", "seed=1"]]


def test_domains_are_ray_s_and_stay_in_their_range():
    axes = [
        Axis("a", "log", (0.1, 10)),
        Axis("b", "uniform", (1, 2)),
        Axis("c", "int", (1, 3)),
        Axis("d", "choice", (5,)),
    ]
    for axis in axes:
        values = [axis.domain().sample() for _ in range(50)]
        low, high = (axis.values[0], axis.values[-1])
        assert all(low <= value <= high for value in values)
    assert {Axis("c", "int", (1, 3)).domain().sample() for _ in range(100)} == {1, 2, 3}
    assert Axis("e", "grid", (1, 2)).domain() == {"grid_search": [1, 2]}

"""What a search is asked for, and what ``resume`` goes on with; no Ray."""

import json

import pytest
from PIL import Image

from pipelines.errors import Misuse
from pipelines.search.asked import SEARCH, asked

PGD = ("recipe=digits_pgd", "search=digits_pgd")
GRADNORM = ("recipe=digits_gradnorm", "search=digits_gradnorm")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [(), ("name=mine",)])
def test_another_folder_resumes_the_same_search_where_it_lies(name, tmp_path, monkeypatch):
    begun = asked(
        [*PGD, *name, "model.weights=null", "storage=here", "tracking.uri=sqlite:///db/mlflow.db"], None, None
    )
    begun.remember()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = asked([f"resume={begun.name}", f"storage={tmp_path / 'here'}"], None, None)
    assert (again.digest, again.name, again.folder, again.uri) == (begun.digest, begun.name, begun.folder, begun.uri)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = asked([f"resume={begun.name}", "storage=../there"], None, None)
    assert (moved.digest, moved.name) == (begun.digest, begun.name)
    assert moved.folder == str(tmp_path / "elsewhere" / ".." / "there" / begun.name)


def test_the_data_of_another_folder_are_found_again(tmp_path, monkeypatch):
    for name, shade in (("one", 0), ("two", 255)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (32, 32), (shade, i, 0)).save(tmp_path / "pictures" / name / f"{i}.png")
    lines = ["recipe=folder_gradnorm", "data.path=pictures", "data.input_size=[3,32,32]", "name=mine"]
    lines += ["model.name=resnet18", "model.weights=null", "batch_size=8", "data.validation=8", "data.test=8"]
    begun = asked(lines, None, None)
    begun.remember()
    assert f"data.path={tmp_path / 'pictures'}" in begun.placed
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert asked(["resume=mine", "storage=../runs"], None, None).digest == begun.digest


def test_credentials_are_not_kept_and_asked_for_again(tmp_path):
    begun = asked([*PGD, "name=mine", "tracking.uri=http://user:sesame@127.0.0.1:1"], None, None)
    begun.remember()
    kept = (tmp_path / "runs" / "mine" / SEARCH).read_text()
    assert "sesame" not in kept
    with pytest.raises(Misuse, match=r"^resume=mine: tracking.uri had credentials, .* give tracking.uri=VALUE beside"):
        asked(["resume=mine"], None, None)
    again = asked(["resume=mine", "tracking.uri=http://user:other@127.0.0.1:1"], None, None)
    assert (again.digest, again.uri) == (begun.digest, "http://user:other@127.0.0.1:1")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "search.space.model.activation.choice=[gelu,nosuch]",
            "model.activation: model.activation='nosuch' is unknown",
        ),
        ("search.space.objective.weight.choice=[1,-1]", "search.space.objective.weight: objective.weight=-1"),
        ("search.space.objective.smoothing.uniform=[0,2]", "search.space.objective.smoothing: "),
        ("search.space.optimizer.lr.uniform=[-1,1]", "search.space.optimizer.lr: optimizer.lr=-1 must be above 0"),
        ("search.space.optimizer.betas.choice=[[0.9,2]]", "search.space.optimizer.betas: "),
        ("search.space.objective.threat.eps.choice=[0.1,0.2]", "the penalty feels only their product"),
    ],
)
def test_a_value_that_no_training_takes_is_refused(lines, message, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "weights.yaml").write_text(
        "space: {objective: {weight: {choice: [1]}}, seed: {int: [0, 9]}}"
    )
    given = ["recipe=digits_gradnorm", "search=weights"]
    with pytest.raises(Misuse) as error:
        asked([*given, lines], tmp_path, None)
    assert message in str(error.value)


def test_relu_under_a_penalty_is_told_of_or_left_out_and_makes_another_search():
    relu = "search.space.model.activation.choice=[relu,gelu]"
    kept, pruned = (asked([*GRADNORM, relu, f"prune_relu={prune}"], None, None) for prune in ("false", "true"))
    assert any("search.space.model.activation holds relu" in note for note in kept.notes)
    assert [axis.values for axis in pruned.axes if axis.key == "model.activation"] == [("gelu",)]
    assert not any("relu" in note for note in pruned.notes)
    assert kept.digest != pruned.digest
    assert json.loads(json.dumps(pruned.identity)) == pruned.identity
    with pytest.raises(Misuse, match="prune_relu=true leaves nothing of it"):
        asked([*GRADNORM, "search.space.model.activation.choice=[relu]", "prune_relu=true"], None, None)


def test_doubts_of_the_recipe_are_notes_unless_what_they_ask_for_is_searched(tmp_path):
    mine = tmp_path / "mine" / "search"
    mine.mkdir(parents=True)
    (mine / "weights.yaml").write_text("trials: 2\nspace: {objective: {weight: {log: [0.1, 10]}}}\n")
    recipe = ["recipe=digits_gradnorm", "search=weights", "model.activation=relu"]
    notes = asked(recipe, tmp_path / "mine", None).notes
    assert any("ReLU-like" in note for note in notes)
    searched = "search.space.model.activation.choice=[gelu]"
    assert not any("ReLU" in note for note in asked([*recipe, searched], tmp_path / "mine", None).notes)

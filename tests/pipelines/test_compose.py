"""From overrides to one plain config."""

from pathlib import Path

import pytest

from pipelines import build, parts, prepare
from pipelines.compose import INCIDENTAL, choices, compose, describe, digest, run_name
from pipelines.errors import Misuse
from trainers.threat import L1, L2, Linf

RECIPES = sorted(choices("recipe"))
NAMED = (
    "digits_standard",
    "digits_gradnorm",
    "digits_pgd",
    "digits_sat",
    "cifar10_gradnorm",
    "cifar10_pgd",
    "imagenet_swin_b_gradnorm",
    "imagenet_r50_sat",
)


def filled(recipe: str, *overrides: str) -> dict:
    return compose("train", [f"recipe={recipe}", "data.path=/data", "model.weights=null", *overrides])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes_to_targets_that_take_their_settings(recipe):
    config = filled(recipe)
    for part in ("threat", "objective", "optimizer", "alarm", "evaluation"):
        node = {key: value for key, value in config[part].items() if part != "objective" or key != "threat"}
        build.check(node, part)
    build.check({key: value for key, value in config["data"].items() if key != "path"}, "data")
    assert parts.objective(config).mode in ("train", "eval")
    assert run_name(config, "data").startswith(f"{recipe}-")


@pytest.mark.parametrize("name", sorted(choices("objective")))
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_objective_is_built_and_trains_against_its_own_threat(name, norm):
    """By whichever of its parts knows one; `edges` and `standard` know none."""
    config = compose("train", ["recipe=digits_standard", f"objective={name}", f"threat={norm}", "threat.eps=0.25"])
    inside = prepare.within(parts.objective(config))
    found = {(part.norm.lower(), part.eps) for part in inside if isinstance(part, L1 | L2 | Linf)}
    assert found == (set() if name in ("edges", "standard") else {(norm, 0.25)})


@pytest.mark.parametrize(
    ("name", "classes", "size"), [("attribute_world", 48, (3, 16, 16)), ("pasted_digits", 10, (1, 32, 32))]
)
def test_a_made_set_is_trained_on_by_any_recipe(name, classes, size):
    data = parts.data(compose("train", ["recipe=digits_standard", f"data={name}"]))
    assert (len(data.classes), tuple(data.input_size), data.size("validation")) == (classes, size, 128)


def test_the_names_others_script_against_exist():
    assert set(NAMED) <= set(RECIPES)


@pytest.mark.parametrize("group", ["recipe", "data", "model", "objective", "optimizer", "threat"])
def test_every_choice_says_what_it_is(group):
    assert choices(group)
    for name, path in choices(group).items():
        assert len(describe(path)) > 15, name


def test_fractions_become_numbers():
    assert filled("cifar10_pgd")["threat"]["eps"] == pytest.approx(8 / 255)
    assert filled("cifar10_pgd", "threat.eps=4/255")["threat"]["eps"] == pytest.approx(4 / 255)


def test_the_threat_judges_and_the_objectives_own_threat_trains():
    config = filled("cifar10_pgd", "objective.threat.eps=2/255")
    assert config["threat"]["eps"] == pytest.approx(8 / 255)
    assert config["evaluation"]["attack"]["threat"]["eps"] == pytest.approx(8 / 255)
    assert config["objective"]["attack"]["threat"]["eps"] == pytest.approx(2 / 255)
    assert config["objective"]["attack"]["step_size"] == pytest.approx(2 / 255 * 2 / 3)
    assert parts.objective(config).attack.threat.eps == pytest.approx(2 / 255)


def test_a_setting_of_a_target_need_not_be_listed_in_its_file():
    assert filled("digits_pgd", "objective.attack.restarts=3")["objective"]["attack"]["restarts"] == 3


def test_the_name_follows_what_is_computed_and_nothing_else():
    config = filled("digits_gradnorm")
    other = {"workers": 7, "storage": "elsewhere", "register_as": "x"}
    assert set(other) <= set(INCIDENTAL)
    assert run_name({**config, **other}, "data") == run_name(config, "data")
    assert run_name(filled("digits_gradnorm", "objective.weight=2"), "data") != run_name(config, "data")
    assert run_name(config, "other data") != run_name(config, "data")
    assert run_name({**config, "name": "mine"}, "other data") == "mine"
    assert digest(filled("digits_gradnorm")) == digest(config)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ("no recipe given", "digits_gradnorm")),
        (["recipe=digits_gradnrom"], ("digits_gradnrom", "nearest: digits_gradnorm")),
        (["recipe=digits_pgd", "objective=gradnrm"], ("objective=gradnrm", "nearest: gradnorm")),
        (["recipe=digits_pgd", "epoch=3"], ("epoch", "nearest: epochs")),
        (["recipe=digits_gradnorm", "objective.wieght=2"], ("objective.wieght", "nearest: weight")),
        (["recipe=digits_pgd", "objective.attack.stesp=2"], ("objective.attack.stesp", "nearest: steps")),
        (["recipe=digits_pgd", "epochs=many"], ("epochs", "many")),
        (["recipe=cifar10_pgd"], ("data.path is not set", "data.path=VALUE")),
        (["recipe=digits_pgd", "epochs"], ("epochs", "KEY=VALUE")),
    ],
)
def test_misuse_names_setting_and_remedy(overrides, words):
    with pytest.raises(Misuse) as error:
        compose("train", overrides)
    for word in words:
        assert word in str(error.value)


def test_paths_may_hold_what_the_override_grammar_keeps_for_itself():
    path = "/data/a=b/{c},d [e]'f"
    assert compose("train", ["recipe=cifar10_pgd", f"data.path={path}"])["data"]["path"] == path


def test_a_users_own_folder_joins_the_search_path(tmp_path: Path):
    (tmp_path / "recipe").mkdir()
    text = "# @package _global_\n# Mine.\ndefaults:\n  - digits_pgd\n  - _self_\nepochs: 7\n"
    (tmp_path / "recipe" / "mine.yaml").write_text(text)
    assert compose("train", ["recipe=mine"], tmp_path)["epochs"] == 7
    assert describe(choices("recipe", tmp_path)["mine"]) == "Mine."
    with pytest.raises(Misuse, match="no such folder"):
        compose("train", ["recipe=mine"], tmp_path / "absent")


@pytest.mark.parametrize(
    "path", ["trainers.state_file.os.system", "trainers.threat.math.sqrt", "torch.optim.Tensor", "trainers.types"]
)
def test_what_a_module_of_ours_imported_is_not_ours(path):
    with pytest.raises(Misuse, match=r"is no class or function of Holdfast's own|cannot be imported"):
        build.build({"_target_": path}, "objective")


def test_a_target_from_elsewhere_needs_trust():
    node = {"_target_": "fractions.Fraction"}
    with pytest.raises(Misuse, match=r"trust=\[fractions\]"):
        build.build(node, "objective")
    assert build.build(node, "objective", trust=["fractions"]) == 0


def test_a_target_within_a_target_is_looked_at_too():
    node = {"_target_": "trainers.attacks.pgd.PGD", "threat": {"_target_": "os.system", "command": "true"}}
    with pytest.raises(Misuse, match=r"attack.threat._target_=os.system"):
        build.build(node, "attack")


def test_parameters_of_activation_and_network_may_be_set_one_by_one():
    config = filled("digits_pgd", "model.activation_parameters.alpha=100", "model.arguments.drop_path_rate=0.1")
    assert config["model"]["activation_parameters"] == {"alpha": 100}
    assert config["model"]["arguments"] == {"width": 24, "blocks": 3, "drop_path_rate": 0.1}


@pytest.mark.parametrize("recipe", RECIPES)
def test_lanes_divide_the_batch_and_serve_every_worker(recipe):
    config = filled(recipe)
    lanes = config["data"].get("lanes") or config["workers"]
    assert config["batch_size"] % lanes == 0 == lanes % config["workers"]
    assert config["batch_size"] % (config["workers"] * config["accumulate"]) == 0


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("when.fresh=[seed=1,data.path=/a b/c]", ["seed=1", "data.path=/a b/c"]),
        ("when.fresh=['seed=1']", ["seed=1"]),
        ("path=/x/y:z=1", "/x/y:z=1"),
        ("notify=[https://chat/hook?a=b]", ["https://chat/hook?a=b"]),
    ],
)
def test_what_hydra_keeps_for_itself_is_quoted(line, value):
    key = line.partition("=")[0]
    found = compose("retrain", [line])
    for part in key.split("."):
        found = found[part]
    assert found == value

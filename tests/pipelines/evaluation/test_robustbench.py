"""RobustBench's suites by name, and the JSON it takes."""

import json
from copy import deepcopy

import pytest
from PIL import Image

from pipelines import build, parts
from pipelines.compose import choices, compose, describe
from pipelines.errors import Misuse
from pipelines.evaluation.radius import written
from pipelines.evaluation.robustbench import SUBMISSION, model_info, write
from trainers.threat import create

SUITES = sorted(choices("suite"))
THREATS = {
    "robustbench_cifar10_linf": ("Linf", 8 / 255),
    "robustbench_cifar10_l2": ("L2", 0.5),
    "autoattack_cifar10_l1": ("L1", 12.0),
    "robustbench_imagenet_linf": ("Linf", 4 / 255),
}


def suite(name: str, *overrides: str) -> dict:
    only = ["only=list.txt"] if "imagenet" in name else []
    return compose("evaluate", [f"suite={name}", "data.path=/data", *only, *overrides])


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_composes_to_one_threat_its_data_and_dated_rows(name):
    config = suite(name)
    about = config["suite"]
    assert config["threats"] == {THREATS[name][0]: [THREATS[name][1]]}
    assert (about["name"], about["norm"], about["eps"]) == (name, *THREATS[name])
    assert (about["n"], about["classes"]) == ((5000, 1000) if "imagenet" in name else (10000, 10))
    assert create(about["norm"], about["eps"]).eps == about["eps"]
    assert config["data"]["path"] == config["data"]["source"]["path"] == "/data"
    build.check(config["data"]["source"], "data.source")
    assert "https://" in about["source"]
    assert len(about["date"]) == 10
    assert len(describe(choices("suite")[name])) > 15


@pytest.mark.parametrize("name", [name for name in SUITES if name.startswith("robustbench")])
def test_published_rows_are_percentages_in_order(name):
    rows = suite(name)["suite"]["published"]
    robust = [row["robust"] for row in rows]
    assert len(rows) >= 7
    assert robust == sorted(robust, reverse=True)
    assert robust[-1] == 0
    assert all(0 <= row["robust"] < row["clean"] < 100 for row in rows)
    assert len({row["name"] for row in rows}) == len(rows)
    assert max(robust) > 50


def test_the_suites_that_others_script_against_exist():
    assert set(THREATS) == set(SUITES)


def test_imagenets_images_are_those_of_the_list_scaled_as_robustbench_scales(tmp_path):
    """A list as RobustBench publishes it, and validation images in their class folders, without a training set."""
    names = [f"{label}/ILSVRC2012_val_0000000{i}.JPEG" for i, label in enumerate(("n01440764", "n01443537") * 3)]
    for i, name in enumerate(names):
        (tmp_path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 260 + i), (40 * i, 0, 0)).save(tmp_path / "val" / name)
    (tmp_path / "list.txt").write_text("\n".join(names[2:5]) + "\n")
    config = suite("robustbench_imagenet_linf", f"data.path={tmp_path}", f"only={tmp_path}/list.txt")
    exam = parts.exam(config)
    assert sorted(exam.name(row) for row in range(len(exam))) == sorted(f"val/{name}" for name in names[2:5])
    assert exam.classes == ("n01440764", "n01443537")
    assert exam.batch(exam.ids.argsort()[:2]).x.shape == (2, 3, 224, 224)
    transform = build.build(config["data"]["transform"], "data.transform")
    assert (transform.interpolation, transform.crop_pct) == ("bilinear", 0.875)


def test_imagenet_needs_the_list():
    with pytest.raises(Misuse, match=r"only is not set: give the list of images that RobustBench publishes"):
        compose("evaluate", ["suite=robustbench_imagenet_linf", "data.path=/data"])


def test_the_command_line_wins_over_the_suite():
    own = ("data=torchvision", "data.source.name=CIFAR10", "threats.Linf=4/255")
    config = suite("robustbench_cifar10_linf", *own)
    assert config["data"]["source"]["_target_"] == "trainers.data.torchvision.Torchvision"
    assert config["threats"] == {"Linf": 4 / 255}
    assert compose("evaluate", [])["suite"] is None
    with pytest.raises(Misuse, match=r"suite=robustbench_cifar10 is unknown; nearest: robustbench_cifar10_l"):
        compose("evaluate", ["suite=robustbench_cifar10"])


@pytest.fixture
def evaluation() -> dict:
    """10,000 images, 8,334 right, 4,321 withstand AutoAttack at 8/255."""

    def robust(right: int) -> dict:
        return {"accuracy": right / 10000, "interval": [0, 1], "n": 10000, "right": right}

    return {
        "name": "mine",
        "model": {"source": "mine.safetensors", "digest": "ab", "architecture": "resnet18"},
        "data": {"name": "cifar10", "split": "test", "n": 10000, "classes": list("0123456789"), "corrupt": {}},
        "clean": robust(8334),
        "threats": [
            {"norm": "L2", "eps": 0.5, "attacks": [], "robust": robust(1), "beyond": None},
            {"norm": "Linf", "eps": 8 / 255, "attacks": [], "robust": robust(4321), "beyond": None},
        ],
        "doubts": [],
        "checked": ["zero gradients"],
        "attack": {"version": "standard", "mode": "reference", "seed": 0},
        "suite": suite("robustbench_cifar10_linf")["suite"],
    }


GIVEN = {
    "link": "https://arxiv.org/abs/2001.03994",
    "name": "Fast is better than free",
    "authors": "Eric Wong, Leslie Rice, J. Zico Kolter",
    "venue": "ICLR 2020",
    "architecture": "PreActResNet-18",
    "reported": "46.06",
    "additional_data": False,
    "number_forward_passes": 1,
}


def test_a_model_info_has_robustbenchs_fields_and_nothing_else(evaluation):
    """The fields of model_info/cifar10/Linf/*.json, in their order, accuracies as texts in percent."""
    fields, notes = model_info(evaluation, **GIVEN)
    assert fields == {
        "link": "https://arxiv.org/abs/2001.03994",
        "name": "Fast is better than free",
        "authors": "Eric Wong, Leslie Rice, J. Zico Kolter",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "cifar10",
        "venue": "ICLR 2020",
        "architecture": "PreActResNet-18",
        "eps": "8/255",
        "clean_acc": "83.34",
        "reported": "46.06",
        "autoattack_acc": "43.21",
        "unreliable": False,
    }
    assert list(fields)[:6] == ["link", "name", "authors", "additional_data", "number_forward_passes", "dataset"]
    assert len(notes) == 1
    assert "model_info/cifar10/Linf/<Name><Year><FirstWordOfTitle>.json" in notes[0]


def test_what_only_the_submitter_knows_is_left_empty_and_said(evaluation):
    fields, notes = model_info(evaluation, link=None, authors="A. Author")
    assert (fields["link"], fields["venue"], fields["additional_data"]) == ("", "", "")
    assert fields["authors"] == "A. Author"
    assert "footnote" not in fields
    empty = notes[0]
    for key in ("link", "name", "additional_data", "venue", "reported"):
        assert f"submission.{key}: {SUBMISSION[key]}" in empty
    assert "submission.authors" not in empty
    assert "architecture is taken as resnet18" in notes[1]
    assert "number_forward_passes is taken as 1" in notes[2]


def test_attacks_beyond_doubts_and_the_fast_mode_are_owned_up_to(evaluation):
    threat = evaluation["threats"][1]
    threat["beyond"] = {"attacks": [{"name": "malt"}], "robust": threat["robust"] | {"right": 4300}}
    evaluation["doubts"] = [{"name": "zero gradients", "explanation": "", "evidence": {}}]
    evaluation["attack"]["mode"] = "fast"
    evaluation["data"]["corrupt"] = {"a.png": 1}
    fields, notes = model_info(evaluation, **GIVEN, footnote="Trained in 6 minutes.")
    assert (fields["autoattack_acc"], fields["external"], fields["unreliable"]) == ("43.21", "43.00", True)
    assert fields["footnote"] == "Trained in 6 minutes. 43.00% robust accuracy is due to AutoAttack followed by malt."
    for note, words in zip(notes, ("reference=false", "1 images could not", "zero gradients", "submit"), strict=True):
        assert words in note
    threat["beyond"]["robust"]["right"] = 4321
    assert "external" not in model_info(evaluation, **GIVEN)[0]


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("suite",), None, "is of no suite"),
        (("suite", "norm"), "L1", "keeps no table for L1, only Linf, L2"),
        (("data", "n"), 128, "is of 10000 images, this evaluation judged 128"),
        (("data", "classes"), list("012"), "has 10 classes, cifar10 has 3"),
        (("attack", "version"), "plus", "attack.version=plus"),
        (("threats", 1, "eps"), 0.1, "judged at Linf 8/255, this evaluation at L2 0.5, Linf 0.1"),
    ],
)
def test_an_evaluation_that_is_not_the_suites_is_refused(evaluation, where, value, words):
    other = deepcopy(evaluation)
    node = other
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    with pytest.raises(Misuse, match=words):
        model_info(other, **GIVEN)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"author": "A"}, "submission.author is unknown; nearest: authors"),
        ({"additional_data": "no"}, "submission.additional_data=no must be true or false"),
        ({"number_forward_passes": 0}, "submission.number_forward_passes=0 must be"),
        ({"number_forward_passes": True}, "submission.number_forward_passes=True must be"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(evaluation, given, words):
    with pytest.raises(Misuse, match=words):
        model_info(evaluation, **given)


def test_it_is_written_whole(evaluation, tmp_path):
    fields, _ = model_info(evaluation, **(GIVEN | {"authors": "Ümit Öz"}))
    path = write(fields, tmp_path / "out")
    assert path.name == "model_info.json"
    assert json.loads(path.read_text(encoding="utf-8")) == fields
    assert "Ümit Öz" in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (4 / 255, "4/255"), (0.5, "0.5"), (0.2, "0.2"), (0.1, "0.1"), (12.0, "12"), (0.031, "0.031")],
)
def test_a_radius_is_written_as_people_write_it(eps, text):
    assert written(eps) == text
    assert build.number(text) == (eps if "/" in text else text)

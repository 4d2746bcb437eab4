"""The command line as a person meets it: words, exit codes, nothing half-written."""

from pathlib import Path

import pytest

from pipelines.cli import MISUSE, OK, main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


DIGITS = ("train", "recipe=digits_gradnorm")
WRONG = [
    (("trian",), "unknown verb; nearest: train"),
    (("train",), "no recipe given"),
    (("train", "recipe=digits_gradnom"), "nearest: digits_gradnorm"),
    ((*DIGITS, "epochs=0"), "epochs=0 must be at least 1"),
    ((*DIGITS, "workers=0"), "workers=0 must be at least 1"),
    ((*DIGITS, "threat.eps=8"), "write 8/255"),
    ((*DIGITS, "threat.norm=L3"), "threat.norm='L3' is unknown"),
    ((*DIGITS, "threat.norm=L2", "threat.eps=9"), "diagonal"),
    ((*DIGITS, "threat.norm=L2", "threat.eps=0"), "above 0"),
    ((*DIGITS, "model.activation=geluu"), "gelu"),
    ((*DIGITS, "model.name=resnet81"), "resnet18"),
    ((*DIGITS, "batch_size=64", "workers=3"), "multiple of 3"),
    ((*DIGITS, "parallel.strategy=fsdp"), "no double backward"),
    ((*DIGITS, "parallel.static_graph=true"), "parallel.static_graph=false"),
    ((*DIGITS, "device=gpu"), "choose one of auto, cpu, cuda"),
    ((*DIGITS, "precision=fp8"), "choose one of float32, bfloat16"),
    ((*DIGITS, "alarm.policy=maybe"), "choose one of off, warn, stop"),
    ((*DIGITS, "optimizer.lr=0"), "optimizer.lr=0"),
    ((*DIGITS, "tracking.uri=http://127.0.0.1:9"), "does not answer"),
    ((*DIGITS, "data.mixing.mixup_alpha=-1"), "must not be negative"),
    ((*DIGITS, "model.weights=/no/such/file.safetensors"), "/no/such/file.safetensors"),
    (("train", "recipe=cifar10_pgd", "data.path=/no/such/folder"), "/no/such/folder"),
    (("train", "recipe=imagenet_r50_gradnorm", "data.path=x"), "model.weights is not set: give what imagenet_r50_swap"),
    ((*DIGITS, "objective._target_=absent.Mine", "trust=[absent]"), "cannot be imported (No module named 'absent')"),
    ((*DIGITS, "optimizer.lr=abc"), "optimizer.lr=abc is not a number"),
    ((*DIGITS, "threat.eps=abc"), "threat.eps=abc"),
    ((*DIGITS, "objective.ramp.slope=-1"), "objective.ramp.slope=-1"),
    (("train", "recipe=digits_pgd", "objective.attack.steps=0"), "objective.attack.steps=0 must be at least 1"),
    (("train", "recipe=digits_pgd", "objective.threat.eps=8"), "objective.threat.eps=8 is outside [0, 1]"),
    ((*DIGITS, "name=../up"), "name=../up must begin with"),
    ((*DIGITS, "parallel.cpus_per_worker=-1"), "parallel.cpus_per_worker=-1 must be above 0"),
    ((*DIGITS, "tracking.patience_minutes=-1"), "tracking.patience_minutes=-1 must not be negative"),
    ((*DIGITS, "storage=/dev/null/runs"), "storage=/dev/null/runs: /dev/null is a file"),
    (("train", "recipe=digits_pgd", "threat.norm=L2", "threat.eps=1", "objective.threat.eps=9"), "diagonal"),
    ((*DIGITS, "evaluation.attack.restarts=0"), "evaluation.attack.restarts=0 must be at least 1"),
    ((*DIGITS, "evaluation.examples=0"), "evaluation.examples=0 must be at least 1"),
    ((*DIGITS, "checkpoint.keep=0"), "checkpoint.keep=0 must be at least 1"),
    ((*DIGITS, "model.activation_parameters.alpha=1"), "alpha"),
    ((*DIGITS, "optimizer.weight_decay=-1"), "weight_decay=-1"),
    ((*DIGITS, "--json=/no/such/folder/out.json"), "not there or not writable"),
    (("recipes", "recipies"), "nearest: recipe"),
]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_a_mistake_is_one_message_and_leaves_nothing_behind(arguments, words, capsys, tmp_path):
    assert main(list(arguments)) == MISUSE
    message = capsys.readouterr().err
    assert words in message
    assert message.startswith("holdfast: ")
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_verb_and_code(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == OK
    text = capsys.readouterr().out
    for word in ("train", "quickstart", "recipes", "doctor", "exit codes", "digits_gradnorm"):
        assert word in text


def test_train_help_shows_the_commented_config(capsys):
    assert main(["train", "--help"]) == OK
    assert "workers: 1" in capsys.readouterr().out


def test_recipes_lists_each_with_its_line(capsys):
    assert main(["recipes"]) == OK
    text = capsys.readouterr().out
    assert "recipe=digits_gradnorm" in text
    assert "GradNorm" in text


def test_doctor_says_what_is_here(capsys):
    assert main(["doctor", "tracking.uri=sqlite:///m.db"]) == OK
    text = capsys.readouterr().out
    for word in ("torch", "ray", "mlflow", "tracking.uri", "storage"):
        assert word in text


def test_doctor_fails_on_a_server_that_is_away(capsys):
    assert main(["doctor", "tracking.uri=http://127.0.0.1:9"]) == 1
    assert "tracking.uri" in capsys.readouterr().err

"""Names of jobs: the same inputs, the same name."""

import pytest

from k8s import job as jobs
from k8s.errors import Misuse
from k8s.settings import Settings

TRAIN = ("train", "recipe=digits_gradnorm", "epochs=3")


def test_the_same_inputs_give_the_same_name_and_any_other_another() -> None:
    base = Settings(image="a/b:1")
    name = jobs.make(base, TRAIN).name
    assert jobs.make(Settings(image="a/b:1", pool="l4-spot", retries=0), TRAIN).name == name, (
        "where it runs is no input"
    )
    others = [
        jobs.make(Settings(image="a/b:2"), TRAIN),
        jobs.make(base, (*TRAIN, "seed=1")),
        jobs.make(Settings(image="a/b:1", storage="s3://x/y"), TRAIN),
        jobs.make(Settings(image="a/b:1", env={"A": "1"}), TRAIN),
    ]
    assert len({name, *(each.name for each in others)}) == 5
    assert jobs.make(base, TRAIN).digest == others[0].digest, "the command's own digest knows no image"


@pytest.mark.parametrize(
    ("command", "begins"),
    [
        (TRAIN, "train-digits-gradnorm-"),
        (("retrain", "register_as=Digits.Prod"), "retrain-digits-prod-"),
        (("train", "recipe=" + "long_" * 20), "train-long-long"),
        (("models",), "models-"),
    ],
)
def test_a_name_says_what_runs_and_is_one_that_kuberay_takes(command: tuple[str, ...], begins: str) -> None:
    name = jobs.make(Settings(), command).name
    assert name.startswith(begins)
    jobs.check(name)


@pytest.mark.parametrize("name", ["a" * 48, "Upper", "1st", "dotted.name", "end-", "under_score", ""])
def test_a_name_that_kuberay_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(Misuse, match=r"^name="):
        jobs.check(name)


@pytest.mark.parametrize("command", [(), ("--json", "x")])
def test_no_command_is_refused(command: tuple[str, ...]) -> None:
    with pytest.raises(Misuse, match="no command to run"):
        jobs.make(Settings(), command)


@pytest.mark.parametrize(
    ("command", "settings", "where"),
    [
        ((*TRAIN, "tracking.uri=http://me:secret@host"), {}, "tracking.uri"),
        (TRAIN, {"tracking_uri": "http://me:secret@host"}, "tracking_uri"),
        (TRAIN, {"storage": "s3://me:secret@bucket/x"}, "storage"),
        (TRAIN, {"env": {"MLFLOW_TRACKING_URI": "http://me:secret@host"}}, "env.MLFLOW_TRACKING_URI"),
    ],
)
def test_a_password_in_an_address_is_refused(command: tuple[str, ...], settings: dict, where: str) -> None:
    with pytest.raises(Misuse, match=f"^{where}: a password in an address would stand in the open"):
        jobs.make(Settings(**settings), command)


def test_the_line_can_be_pasted_into_a_shell() -> None:
    line = jobs.make(Settings(), ("train", "recipe=x", "trust=[a, b]")).line
    assert line == "holdfast train recipe=x 'trust=[a, b]'"


def test_workers_are_the_commands_last_word_on_it() -> None:
    assert jobs.workers(("train", "workers=2", "workers=8")) == 8
    assert jobs.workers(TRAIN) == 1
    with pytest.raises(Misuse, match="workers=none must be a whole number"):
        jobs.workers(("train", "workers=none"))

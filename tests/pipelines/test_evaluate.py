"""`holdfast evaluate` as a person meets it: models from anywhere, numbers that add up, nothing lost, nothing mixed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pipelines import storage
from pipelines.cli import FAILURE, MISUSE, OK, STOPPED, main
from pipelines.evaluation import records
from tests.pipelines import strangers
from trainers import models
from trainers.evaluation.intervals import wilson

ROOT = Path(__file__).parents[2]
QUICK = ("attack=pgd", "attack.steps=5", "doubts=false", "report.pictures=0", "threats.Linf=0.1", "examples=24")
STRANGER = ("model.source=stranger:robust", "trust=true")


@pytest.fixture(autouse=True)
def _beside_a_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strangers.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("stranger", None)


def evaluate(folder: Path, uri: str, *overrides: str, code: int = OK) -> dict[str, Any]:
    out = folder / "evaluation-out.json"
    out.unlink(missing_ok=True)
    place = (f"tracking.uri={uri}", f"storage={folder / 'runs'}", f"--json={out}")
    assert main(["evaluate", *place, *overrides]) == code
    return json.loads(out.read_text()) if out.exists() else {}


def table(found: dict[str, Any]) -> Any:
    """What must not depend on how it was run."""
    return [
        found["clean"],
        [
            [threat["norm"], threat["eps"], threat["robust"], threat["per_class"],
             [(attack["name"], attack["fooled"], attack["left"]) for attack in threat["attacks"]]]
            for threat in found["threats"]
        ],
    ]  # fmt: skip


def rows(found: dict[str, Any]) -> Any:
    columns = records.read(found["storage"]).columns
    return {name: list(values) for name, values in columns.items() if name != "distance"}


def test_a_stranger_s_model_is_evaluated_by_one_line(tmp_path, tracking_uri, capsys):
    found = evaluate(tmp_path, tracking_uri, *STRANGER, "threats.Linf=[0.05,0.1]", "threats.L2=0.5", "examples=8")
    said = capsys.readouterr().out
    place = Path(found["storage"])
    assert [(threat["norm"], threat["eps"]) for threat in found["threats"]] == [
        ("Linf", 0.05),
        ("Linf", 0.1),
        ("L2", 0.5),
    ]
    assert found["clean"]["n"] == 8
    for threat in found["threats"]:
        assert [attack["name"] for attack in threat["attacks"]] == ["apgd-ce", "apgd-t", "fab-t", "square"]
        assert [attack["name"] for attack in threat["beyond"]["attacks"]] == ["malt"]
        left = found["clean"]["right"]
        for attack in (*threat["attacks"], *threat["beyond"]["attacks"]):
            assert (attack["attacked"], attack["left"]) == (left, left - attack["fooled"])
            assert attack["forwards"] > 0 or left == 0
            left = attack["left"]
        assert threat["robust"]["interval"] == list(wilson(threat["robust"]["right"], 8))
        assert sum(one["robust"] for one in threat["per_class"]) == threat["robust"]["right"]
    assert found["doubts"] == []
    assert len(found["checked"]) > 8
    kept = records.read(place)
    assert len(kept) == 3 * 8
    assert kept.columns["robust"].sum() == sum(threat["robust"]["right"] for threat in found["threats"])
    assert kept.about["model"]["digest"] == found["model"]["digest"]
    page = (place / "report.html").read_text()
    assert "stranger:robust" in page
    assert "data:image/png" in page
    assert f"{place}/report.html" in said

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    run = client.get_run(found["model"]["run_id"])
    assert run.info.status == "FINISHED"
    assert (
        run.data.metrics["evaluation/autoattack-standard/Linf_0.1/robust_accuracy"]
        == found["threats"][1]["robust"]["accuracy"]
    )
    files = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, f"evaluation/{found['name']}")}
    assert {"report.html", "card.md", "evaluation.json", "records.parquet"} <= files


@pytest.mark.usefixtures("ray_cluster")
def test_a_registered_version_carries_its_evaluation(tmp_path, tracking_uri, capsys):
    from mlflow import MlflowClient

    short = ["epochs=2", "model.arguments.blocks=1", "model.arguments.width=4", "evaluation.attack.steps=2"]
    place = [f"storage={tmp_path / 'runs'}", f"tracking.uri={tracking_uri}"]
    assert main(["train", "recipe=digits_gradnorm", *short, *place, "register_as=d"]) == OK
    found = evaluate(tmp_path, tracking_uri, "model.source=models:/d/1", *(q for q in QUICK if "threats" not in q))
    assert (found["threats"][0]["norm"], found["threats"][0]["eps"]) == ("Linf", 0.1)  # what its run was judged at
    assert found["model"]["version"] == "d/1"
    client = MlflowClient(tracking_uri)
    tags = client.get_model_version("d", "1").tags
    run_id = client.get_model_version("d", "1").run_id
    assert found["model"]["run_id"] == run_id
    assert tags["evaluation.report"] == f"runs:/{run_id}/evaluation/{found['name']}/report.html"
    told = json.loads(tags[f"evaluation.{found['name']}"])
    assert (told["n"], told["robust"]) == (24, {"Linf 0.1": found["threats"][0]["robust"]["right"]})
    assert told["doubts"] == "not looked for"
    assert "evaluation/doubts" not in client.get_run(run_id).data.metrics
    again = evaluate(tmp_path, tracking_uri, "model.source=models:/d/1", *(q for q in QUICK if "threats" not in q))
    assert table(again) == table(found)
    assert len(client.get_metric_history(run_id, "evaluation/clean_accuracy")) == 1
    assert "continuing from" in capsys.readouterr().out


def test_a_timm_checkpoint_on_disk_is_evaluated(tmp_path, tracking_uri):
    net = models.create("resnet10t", 10, (1, 8, 8), mean=(0.0,), std=(1.0,))
    from safetensors.torch import save_file

    save_file(net.network.state_dict(), tmp_path / "net.safetensors")
    found = evaluate(tmp_path, tracking_uri, "model.name=resnet10t", "model.weights=net.safetensors", *QUICK)
    assert found["model"]["architecture"] == "resnet10t"
    x = strangers.digits(24).batch(torch.arange(24))
    assert found["clean"]["right"] == int((net.eval()(x.x).argmax(1) == x.y).sum())


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_nothing_but_who_does_the_work(tmp_path, tracking_uri, workers):
    one = evaluate(tmp_path, tracking_uri, *strangers.saved(tmp_path), *QUICK)
    shared = ("parallel.cpus_per_worker=0.5", "batch_size=5", "name=shared", f"workers={workers}")
    many = evaluate(tmp_path, tracking_uri, *strangers.saved(tmp_path), *QUICK, *shared)
    assert many["cost"]["workers"] == workers
    assert table(many) == table(one)
    assert rows(many) == rows(one)


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_is_killed_is_replaced_and_nothing_changes(tmp_path, tracking_uri):
    slow = ("attack=pgd", "attack._target_=trainers.attacks.apgd.APGD", "attack.steps=400", "attack.restarts=4")
    slow = (*slow, "journal.seconds=0.1", "parallel.cpus_per_worker=1", "threats.Linf=0.02", "beyond=none")
    settings = [*slow, "doubts=false", "report.pictures=0", "examples=24", "workers=2"]
    whole = evaluate(tmp_path, tracking_uri, *strangers.saved(tmp_path), *settings, "workers=1")
    killed: list[int] = []
    middles = tmp_path / "runs" / "cut" / "middle"
    killer = threading.Thread(target=_kill_an_evaluator, args=(middles, killed), daemon=True)
    killer.start()
    cut = evaluate(tmp_path, tracking_uri, *strangers.saved(tmp_path), *settings, "name=cut")
    killer.join(timeout=5)
    assert killed, "no evaluator was killed: it was over too soon"
    assert table(cut) == table(whole)


def _kill_an_evaluator(middles: Path, killed: list[int]) -> None:
    """SIGKILL to one of them, once the middle of what it works on is written down."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if list(middles.glob("*/*.safetensors")) and "Evaluator.work" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.005)


@pytest.mark.timeout(400)
def test_killed_and_stopped_the_same_command_gives_the_same_table(tmp_path, tracking_uri):
    settings = (
        *STRANGER,
        "threats.Linf=0.03",
        "examples=10",
        "beyond=none",
        "doubts=false",
        "report.pictures=0",
        "journal.seconds=0.2",
    )
    whole = evaluate(tmp_path, tracking_uri, *settings)
    command = [sys.executable, "-m", "pipelines.cli", "evaluate", *settings, "name=cut"]
    command += [f"tracking.uri={tracking_uri}", f"storage={tmp_path / 'runs'}", "--json=cut.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    place, before = tmp_path / "runs" / "cut", 0.0
    for ending in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not any(path.stat().st_mtime > before for path in place.glob("middle/*/*.safetensors")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(ending)
        assert process.wait(60) == (STOPPED if ending == signal.SIGTERM else -signal.SIGKILL)
        before = max(path.stat().st_mtime for path in place.glob("middle/*/*.safetensors"))
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert "continuing from" in said
    found = json.loads((tmp_path / "cut.json").read_text())
    assert table(found) == table(whole)
    assert rows(found) == rows(whole)
    for name in ("forwards", "backwards"):  # what was in flight is all that was done twice
        assert whole["cost"][name] * 0.99 <= found["cost"][name] <= whole["cost"][name] * 1.2
    assert not list(place.glob("middle/*/*"))


def test_a_journal_of_another_model_or_threat_is_refused(tmp_path, tracking_uri, capsys):
    evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, "name=mine")
    kept = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    for change, what in (
        ("model.source=stranger:other", "model="),
        ("threats.Linf=0.2", "threats=[Linf 0.1] there, [Linf 0.2] here"),
        ("threats.Linf=0.1000001", "threats="),
        ("seed=1", "seed=0 there, 1 here"),
        ("examples=23", "examples="),
        ("attack.steps=6", "attack.steps=5 there, 6 here"),
    ):
        evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, "name=mine", change, code=MISUSE)
        assert what in capsys.readouterr().err.replace('"', "")
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == kept
    (journal,) = (tmp_path / "runs" / "mine" / "journal").glob("*/0-pgd-*.json")
    journal.write_text(journal.read_text()[:40])
    evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, "name=mine", code=MISUSE)
    assert "is not whole" in capsys.readouterr().err
    journal.unlink()
    evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, "name=mine")


def test_in_a_bucket_it_is_the_same(tmp_path, tracking_uri, bucket, capsys):
    here = evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK)
    place = f"storage=s3://{bucket}/evaluations"
    there = evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, place, "name=mine", "journal.seconds=0")
    assert table(there) == table(here)
    assert rows(there) == rows(here)
    objects = storage.files(f"s3://{bucket}").list(f"s3://{bucket}/evaluations/mine")
    assert {uri.split("/")[5] for uri in objects} >= {"config.json", "journal", "report.html", "records.parquet"}
    assert not [uri for uri in objects if "/middle/" in uri]
    capsys.readouterr()
    evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, place, "name=mine")
    assert "continuing from 3 finished items" in capsys.readouterr().out
    evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, place, "name=mine", "seed=1", code=MISUSE)


def test_the_model_s_code_is_not_changed_unseen(tmp_path, tracking_uri, capsys):
    evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK)
    (tmp_path / "stranger.py").write_text(strangers.CODE.replace("2 * x - 1", "1 * x"))
    sys.modules.pop("stranger")
    evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, code=MISUSE)
    assert "it answers the first images otherwise" in capsys.readouterr().err


def test_what_a_weak_attack_leaves_is_doubted_at_every_eps_and_batch(tmp_path, tracking_uri):
    weak = ("attack=pgd", "attack.steps=1", "+attack.step_size=1e-6", "beyond=none", "report.pictures=0", "examples=64")
    for more in (("threats.Linf=0.1",), ("threats.Linf=0.1", "batch_size=7"), ("threats.Linf=[0.1,0.99]",)):
        found = evaluate(tmp_path, tracking_uri, *STRANGER, *weak, *more)
        (doubt,) = (doubt for doubt in found["doubts"] if doubt["name"] == "more effort still gains")
        assert "Linf 0.1" in doubt["evidence"]["at"]


def test_a_model_that_breaks_a_check_keeps_its_verdicts_and_is_doubted(tmp_path, tracking_uri, monkeypatch):
    from trainers.evaluation import doubts

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    with monkeypatch.context() as patch:
        patch.setattr(doubts, "examine", broken)
        found = evaluate(tmp_path, tracking_uri, *STRANGER, *(q for q in QUICK if "doubts" not in q))
    (doubt,) = found["doubts"]
    assert doubt["name"] == "not examined"
    assert "no such kernel" in doubt["evidence"]["error"]
    assert evaluate(tmp_path, tracking_uri, *STRANGER, *(q for q in QUICK if "doubts" not in q))["doubts"] == []
    assert found["threats"][0]["robust"]["n"] == 24


def test_each_tracking_server_is_told_once(tmp_path, tracking_uri, tracking_template):
    from mlflow import MlflowClient

    shutil.copyfile(tracking_template, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    for uri in (tracking_uri, other, tracking_uri):
        found = evaluate(tmp_path, uri, *STRANGER, *QUICK)
    for uri in (tracking_uri, other):
        (run,) = MlflowClient(uri).search_runs(["1"])
        assert run.info.status == "FINISHED"
        key = "evaluation/clean_accuracy"
        assert run.data.metrics[key] == found["clean"]["accuracy"]
        assert len(MlflowClient(uri).get_metric_history(run.info.run_id, key)) == 1


@pytest.mark.usefixtures("ray_cluster")
def test_in_reference_mode_two_workers_find_what_one_does(tmp_path, tracking_uri):
    apgd = ("attack=pgd", "attack._target_=trainers.attacks.apgd.APGD", "attack.steps=20", "attack.restarts=2")
    settings = (
        "reference=true",
        "batch_size=6",
        "threats.Linf=0.1",
        "doubts=false",
        "report.pictures=0",
        "examples=24",
    )
    one = evaluate(tmp_path, tracking_uri, *strangers.saved(tmp_path), *apgd, *settings)
    shared = ("workers=2", "name=shared", "parallel.cpus_per_worker=1")
    two = evaluate(tmp_path, tracking_uri, *strangers.saved(tmp_path), *apgd, *settings, *shared)
    assert one["attack"]["mode"] == "reference"
    assert (table(two), rows(two)) == (table(one), rows(one))
    other = evaluate(tmp_path, tracking_uri, *strangers.saved(tmp_path), *apgd, *settings, "batch_size=7")
    assert other["name"] != one["name"]


def test_a_curve_falls_through_what_was_measured(tmp_path, tracking_uri):
    curve = ("curve.draw=true", "curve.steps=10", "curve.halvings=3", "threats.L2=0.5", "batch_size=16")
    found = evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, *curve)
    assert [one["norm"] for one in found["curves"]] == ["Linf", "L2"]
    for one, threat in zip(found["curves"], found["threats"], strict=True):
        assert one["eps"][0] == 0
        assert one["accuracy"][0] == found["clean"]["accuracy"]
        assert one["accuracy"] == sorted(one["accuracy"], reverse=True)
        beyond = [share for eps, share in zip(one["eps"], one["accuracy"], strict=True) if eps >= threat["eps"]]
        assert beyond[0] <= threat["robust"]["accuracy"]
    again = evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, *curve[:-1], "batch_size=7")
    assert again["name"] == found["name"]
    assert again["curves"] == found["curves"]
    plain = evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, "threats.L2=0.5")
    assert (plain["name"], plain["curves"]) == (found["name"], [])


def test_two_evaluations_are_compared(tmp_path, tracking_uri, capsys):
    one = evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK)
    other = evaluate(tmp_path, tracking_uri, *strangers.saved(tmp_path), *QUICK)
    capsys.readouterr()
    assert main(["compare", one["storage"], other["storage"], f"--json={tmp_path / 'c.json'}"]) == OK
    said = capsys.readouterr().out
    assert "McNemar" in said
    assert json.loads((tmp_path / "c.json").read_text())
    assert main(["compare", one["storage"]]) == MISUSE
    assert main(["compare", one["storage"], str(tmp_path / "nowhere")]) == MISUSE


TWO = """

def two():
    head = nn.Linear(64, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(nn.Flatten(), head)
"""


def test_an_image_that_cannot_be_read_counts_as_wrong(tmp_path, tracking_uri, capsys):
    from PIL import Image

    for split in ("train", "val"):
        for k in range(12):
            path = tmp_path / "images" / split / str(k % 2) / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 20 * k).save(path)
    (tmp_path / "images" / "val" / "0" / "4.png").write_bytes(b"not a picture")
    names = (
        "model.source=stranger:two",
        "trust=true",
        "data=folder",
        f"data.path={tmp_path / 'images'}",
        "data.input_size=[1,8,8]",
    )
    code = strangers.CODE + TWO
    (tmp_path / "stranger.py").write_text(code)
    evaluate(tmp_path, tracking_uri, *names, *QUICK, code=MISUSE)
    assert "4.png cannot be decoded" in capsys.readouterr().err
    found = evaluate(tmp_path, tracking_uri, *names, *QUICK, "data.on_corrupt=skip")
    assert found["clean"]["n"] == 12
    assert found["clean"]["right"] == 5  # it says class 0 of everything, and one of the six of class 0 is not readable
    assert [name.split("/")[-1] for name in found["data"]["corrupt"]] == ["4.png"]


def test_a_server_that_is_gone_at_the_end_loses_nothing(tmp_path, tracking_uri, monkeypatch):
    from mlflow import MlflowClient

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as context:
        context.setattr(MlflowClient, "log_artifacts", refuse)
        evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, "name=mine", code=FAILURE)
    assert (tmp_path / "runs" / "mine" / "report.html").exists()
    found = evaluate(tmp_path, tracking_uri, *STRANGER, *QUICK, "name=mine")
    assert MlflowClient(tracking_uri).list_artifacts(found["model"]["run_id"], "evaluation/mine")

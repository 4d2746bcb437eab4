"""Where a run's files lie: each place one config's own, none that is lost."""

import json
from pathlib import Path

import pytest

from pipelines import places
from pipelines.compose import compose, computed, digest
from pipelines.errors import Misuse


def config(folder: Path | str, *overrides: str, recipe: str = "digits_standard") -> dict:
    return places.located(compose("train", [f"recipe={recipe}", f"storage={folder}", *overrides]))


def owner(config: dict, name: str, data: str) -> str:
    """The digest of a run that may lie there."""
    identity = computed(config)
    places.owner(config["storage"], name, f"{digest(identity)}-{data}", identity)
    return f"{digest(identity)}-{data}"


def claimed(config: dict) -> str:
    ours = owner(config, "mine", "data")
    places.claim(config["storage"], "mine", ours, computed(config))
    return ours


def test_a_place_is_its_first_run_s(tmp_path):
    first = config(tmp_path / "runs")
    ours = claimed(first)
    assert owner(config(tmp_path / "runs", "workers=2", "register_as=x"), "mine", "data") == ours
    assert owner(config(tmp_path / "runs", "seed=1"), "other", "data") != ours
    record = json.loads((tmp_path / "runs" / "mine" / "config.json").read_text())
    assert record["config"]["epochs"] == first["epochs"]
    assert "storage" not in record["config"]


def test_another_config_is_refused_with_what_differs_and_changes_nothing(tmp_path):
    claimed(config(tmp_path))
    before = (tmp_path / "mine" / "config.json").read_bytes()
    with pytest.raises(Misuse, match=r"name=mine: .*another config \(.*seed=0 there, 1 here\); give another name"):
        owner(config(tmp_path, "seed=1"), "mine", "data")
    with pytest.raises(Misuse, match=r"another config \(on other data\)"):
        owner(config(tmp_path), "mine", "changed data")
    assert (tmp_path / "mine" / "config.json").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b'{"digest": "x", "conf', b"[]", b"{}"])
def test_a_record_that_is_not_whole_is_told_with_the_way_on(tmp_path, content):
    claimed(config(tmp_path))
    (tmp_path / "mine" / "config.json").write_bytes(content)
    with pytest.raises(Misuse, match=r"storage=.*mine/config\.json is not whole \(.+\); remove it"):
        owner(config(tmp_path), "mine", "data")


def test_a_storage_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match=r"storage=.*/file/runs: .*/file is a file; give a folder"):
        places.check(config(tmp_path / "file" / "runs"))


def test_a_record_holds_no_credentials(tmp_path):
    claimed(config(tmp_path, "data.path=s3://key:swordfish@bucket/x", recipe="cifar10_pgd"))
    assert "swordfish" not in (tmp_path / "mine" / "config.json").read_text()


def test_a_job_s_copy_of_the_working_directory_is_no_place(tmp_path):
    copy = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_0123/runs"
    with pytest.raises(Misuse, match=r"storage=.*deletes after the job; give s3://bucket/prefix, or an absolute path"):
        places.check(config(copy, "tracking.uri=http://mlflow:5000"))
    with pytest.raises(Misuse, match=r"tracking\.uri=.*deletes after the job; give a tracking server"):
        places.check(config("s3://bucket/runs", f"tracking.uri=sqlite:///{copy}/mlflow.db"))
    with pytest.raises(Misuse, match=r"json=.*deletes after the job; give a place outside it"):
        places.check(config("s3://b/runs", "tracking.uri=http://mlflow:5000", f"json={copy}/out.json"))
    places.check(config(tmp_path))


def test_local_places_are_doubted_on_several_nodes_only(tmp_path):
    local = config(tmp_path, f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    assert list(places.doubts(local, nodes=1)) == []
    found = list(places.doubts(local, nodes=3))
    assert [doubt.partition("=")[0] for doubt in found] == ["storage", "tracking.uri"]
    assert all("3 nodes" in doubt for doubt in found)
    assert list(places.doubts(config("s3://bucket/runs", "tracking.uri=http://mlflow:5000"), nodes=3)) == []


def test_every_path_is_made_absolute_wherever_it_is_repeated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = config("runs", "data.path=images", "model.weights=w.safetensors", recipe="cifar10_pgd")
    assert made["storage"] == str(tmp_path / "runs")
    assert made["data"]["path"] == made["data"]["source"]["path"] == str(tmp_path / "images")
    assert made["model"]["weights"] == str(tmp_path / "w.safetensors")
    assert made["tracking"]["uri"] == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert config("s3://b/runs")["storage"] == "s3://b/runs"
    named = config("runs", "data=torchvision", "data.source.name=SVHN", "data.path=SVHN")
    assert named["data"]["path"] == str(tmp_path / "SVHN")
    assert named["data"]["source"]["name"] == "SVHN"

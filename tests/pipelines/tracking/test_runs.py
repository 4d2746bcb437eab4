import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.errors import Failure, Misuse
from pipelines.tracking import git, runs, server
from pipelines.tracking.git import Git

DATASET = runs.Dataset(name="digits", digest="d" * 64, source="s3://me:pw@bucket/digits")
PARAMS = {"epochs": 3, "threat": {"norm": "Linf", "eps": "8/255"}, "tracking": {"password": "hunter2"}}


def opened(uri: str, **changes: object) -> str:
    arguments = {"key": "k", "name": "digits_gradnorm", "params": PARAMS, "tags": {"trust": "mine", "token": "t"}}
    return runs.open_run(uri, "holdfast", **{**arguments, "dataset": DATASET, "git": Git("c0ffee", True), **changes})


@pytest.mark.parametrize("over", ["database", "http"])
def test_a_run_is_made_once_and_says_where_it_comes_from(over, request):
    uri = (
        request.getfixturevalue("tracking_uri") if over == "database" else request.getfixturevalue("mlflow_server").uri
    )
    run_id = opened(uri)
    assert opened(uri) == run_id
    assert opened(uri, key="other") != run_id

    run = server.client(uri).get_run(run_id)
    assert run.info.run_name == "digits_gradnorm"
    assert run.info.status == "RUNNING"
    assert run.data.params == {"epochs": "3", "threat.norm": "Linf", "threat.eps": "8/255", "tracking.password": "***"}
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert run.data.tags["holdfast.git_dirty"] == "true"
    assert run.data.tags["holdfast.data_digest"] == "d" * 64
    assert run.data.tags["trust"] == "mine"
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "d" * 36)
    assert [(t.key, t.value) for t in used.tags] == [("mlflow.data.context", "training")]
    assert "hunter2" not in str(run.to_dictionary())
    assert "pw@" not in str(run.to_dictionary())


def test_a_retry_reopens_the_run_and_leaves_its_params(tracking_uri):
    run_id = opened(tracking_uri)
    runs.close_run(tracking_uri, run_id, "FAILED")
    client = server.client(tracking_uri)
    closed = client.get_run(run_id).info
    assert closed.status == "FAILED"
    assert closed.end_time

    assert opened(tracking_uri, params={**PARAMS, "epochs": 99, "workers": 2}) == run_id
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.params["epochs"] == "3"
    assert run.data.params["workers"] == "2"


def test_a_second_data_digest_becomes_a_second_input(tracking_uri):
    run_id = opened(tracking_uri)
    assert opened(tracking_uri, dataset={**DATASET, "digest": "e" * 64}) == run_id
    inputs = server.client(tracking_uri).get_run(run_id).inputs.dataset_inputs
    assert sorted(i.dataset.digest[0] for i in inputs) == ["d", "e"]


def test_two_at_once_get_one_run(mlflow_server):
    ids: list[str] = []
    start = threading.Barrier(3)

    def one() -> None:
        start.wait()
        ids.append(opened(mlflow_server.uri, key="race"))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ids) == 3
    assert len(set(ids)) == 1
    experiment = server.client(mlflow_server.uri).get_experiment_by_name("holdfast").experiment_id
    assert len(runs._with_key(server.client(mlflow_server.uri), experiment, "race")) == 1


def test_the_environments_run_id_is_not_taken(tracking_uri, monkeypatch):
    other = opened(tracking_uri, key="other")
    monkeypatch.setenv("MLFLOW_RUN_ID", other)
    assert opened(tracking_uri) != other


def test_many_params_are_all_written(tracking_uri):
    run_id = opened(tracking_uri, params={f"p{i}": i for i in range(250)})
    assert len(server.client(tracking_uri).get_run(run_id).data.params) == 250


def test_a_relative_database_stays_the_same_file_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = server.absolute("sqlite:///runs/mlflow.db")
    assert uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.chdir("/")
    assert server.absolute(uri) == uri


def test_artifacts_lie_beside_the_database_not_where_the_process_runs(tracking_uri, tmp_path):
    opened(tracking_uri)
    experiment = server.client(tracking_uri).get_experiment_by_name("holdfast")
    assert experiment.artifact_location == (tmp_path / "artifacts").as_uri()


def test_a_new_database_is_made_in_silence(tmp_path):
    code = f"from pipelines.tracking import runs; runs.check('sqlite:///{tmp_path}/new/mlflow.db')"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "new" / "mlflow.db").is_file()


def test_nobody_there_is_misuse_within_seconds():
    start = time.monotonic()
    with pytest.raises(Misuse, match=r"tracking.uri=http://\*\*\*@127.0.0.1:9 does not answer .*start it") as caught:
        runs.check("http://me:hunter2@127.0.0.1:9")
    assert time.monotonic() - start < 20
    assert "hunter2" not in str(caught.value)


def test_a_server_that_accepts_but_never_answers_is_misuse_within_seconds():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        start = time.monotonic()
        with pytest.raises(Misuse, match="does not answer"):
            runs.check(f"http://127.0.0.1:{mute.getsockname()[1]}", within=0.5)
        assert time.monotonic() - start < 10


def test_a_path_is_not_a_server(tmp_path):
    with pytest.raises(Misuse, match="sqlite:///"):
        runs.check("runs/mlruns")
    (tmp_path / "mlflow.db").write_text("not a database, surely" * 100)
    with pytest.raises(Misuse, match="not an MLflow database"):
        runs.check(f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "file").touch()
    with pytest.raises(Misuse, match="folder cannot be made"):
        runs.check(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_deleted_experiment_is_misuse(tracking_uri):
    opened(tracking_uri)
    client = server.client(tracking_uri)
    client.delete_experiment(client.get_experiment_by_name("holdfast").experiment_id)
    with pytest.raises(Misuse, match=r"tracking\.experiment=holdfast is deleted"):
        opened(tracking_uri)


def test_closing_with_the_server_away_fails_in_time_and_says_what_to_do():
    start = time.monotonic()
    with pytest.raises(Failure, match="run the same command again"):
        runs.close_run("http://127.0.0.1:9", "0" * 32, "FINISHED", within=1.5)
    assert time.monotonic() - start < 20
    with pytest.raises(ValueError, match="FINISHED, FAILED, KILLED"):
        runs.close_run("http://127.0.0.1:9", "0" * 32, "done")


def test_git_state_is_read(tmp_path):
    assert git.state(tmp_path) is None

    def call(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    call("init")
    (tmp_path / "a").write_text("1")
    call("add", "a")
    call("commit", "-m", "a")
    clean = git.state(tmp_path)
    assert clean is not None
    assert (len(clean.commit), clean.dirty) == (40, False)
    (tmp_path / "a").write_text("2")
    assert git.state(tmp_path) == (clean.commit, True)

from unittest import mock

import pytest
import torch

from pipelines.errors import Misuse
from pipelines.tracking import registry, runs, server
from pipelines.tracking.origin import origin
from trainers import models

TAGS = {"threat": "Linf 0.1", "recipe": "digits_gradnorm"}


def put(uri, tmp_path, key, name, tags=TAGS, metrics=None):
    run_id = runs.open_run(uri, "origin", key, key, {}, tags=tags)
    model = models.create("holdfast_resnet", 3, (1, 8, 8), arguments={"width": 4, "blocks": 1})
    models.save(model, tmp_path / key)
    stated = {"clean_accuracy": 0.875} if metrics is None else metrics
    registry.register(uri, run_id, model, tmp_path / key, name, stated, tags, (1, 8, 8))
    return run_id


def test_versions_aliases_models_and_runs_tell_the_same_facts(tracking_uri, tmp_path):
    client = server.client(tracking_uri)
    run_id = put(tracking_uri, tmp_path, "first", "digits")
    second = put(tracking_uri, tmp_path, "second", None)
    client.set_registered_model_alias("digits", "champion", 1)

    for source in ("models:/digits/1", "models:/digits@champion"):
        facts = origin(source, tracking_uri)
        assert (facts.address, facts.title, facts.version) == ("models:/digits/1", "digits/1", ("digits", 1))
        assert (facts.run_id, facts.threat, facts.clean_accuracy) == (run_id, ("Linf", 0.1), 0.875)
    facts = origin(f"runs:/{second}", tracking_uri)
    assert (facts.title, facts.version, facts.run_id) == ("second", None, second)
    assert (facts.threat, facts.clean_accuracy) == (("Linf", 0.1), 0.875)
    assert facts == origin(facts.address, tracking_uri) == origin(f"runs:/{second}/model", tracking_uri)
    torch.testing.assert_close(
        registry.load(facts.address, tracking_uri).state_dict(), models.load(tmp_path / "second").state_dict()
    )


def test_a_tracking_server_tells_the_same(mlflow_server, tmp_path):
    run_id = put(mlflow_server.uri, tmp_path, "over-http", "over-http")
    facts = origin("models:/over-http/1", mlflow_server.uri)
    assert (facts.run_id, facts.version) == (run_id, ("over-http", 1))
    assert (facts.threat, facts.clean_accuracy) == (("Linf", 0.1), 0.875)
    assert origin(f"runs:/{run_id}", mlflow_server.uri).clean_accuracy == 0.875
    with pytest.raises(Misuse, match=r"is not at tracking\.uri=http://.*over-http has versions 1"):
        origin("models:/over-http/2", mlflow_server.uri)
    with pytest.raises(Misuse, match=r"is not at tracking\.uri=http://.*; correct the one"):
        origin(f"runs:/{'0' * 32}", mlflow_server.uri)


def test_tags_that_say_nothing_are_no_facts(tracking_uri, tmp_path):
    put(tracking_uri, tmp_path, "odd", "odd", tags={"threat": "Linf(eps=8/255)"}, metrics={})
    facts = origin("models:/odd/1", tracking_uri)
    assert (facts.threat, facts.clean_accuracy) == (None, None)
    server.client(tracking_uri).set_model_version_tag("odd", "1", "metrics.clean_accuracy", "good")
    assert origin("models:/odd/1", tracking_uri).clean_accuracy is None


def test_what_is_not_there_is_named_with_what_is(tracking_uri, tmp_path):
    run_id = runs.open_run(tracking_uri, "origin", "key", "unfinished", {})
    with pytest.raises(
        Misuse, match=r"^s=models:/digits/1 is not at tracking.uri=sqlite.*registered are none; correct"
    ):
        origin("models:/digits/1", tracking_uri, "s")
    put(tracking_uri, tmp_path, "first", "digits")
    for source, others in (
        ("models:/digits/7", "digits has versions 1"),
        ("models:/digits@nobody", "digits has versions 1"),
        ("models:/digit/1", "registered are digits"),
        ("models:/m-0123", ""),
        (f"runs:/{'0' * 32}", ""),
    ):
        with pytest.raises(Misuse, match=rf"^s={source} is not at tracking\.uri=.*{others}; correct the one or"):
            origin(source, tracking_uri, "s")
    with pytest.raises(Misuse, match=r"this run \(RUNNING\) has no finished model"):
        origin(f"runs:/{run_id}", tracking_uri)
    for source in ("models:/digits", "models:/digits/latest", f"runs:/{run_id}/other/path"):
        with pytest.raises(Misuse, match=r"names no model: write models:/NAME/1, models:/NAME@ALIAS or runs:/RUN_ID"):
            origin(source, tracking_uri)


def test_a_database_or_server_that_is_not_there_is_named_and_not_made(tmp_path):
    with pytest.raises(Misuse, match=r"there is no such database, so source=models:/a/1 is not there"):
        origin("models:/a/1", f"sqlite:///{tmp_path}/none/mlflow.db")
    assert not (tmp_path / "none").exists()
    with pytest.raises(Misuse, match=r"tracking\.uri=http://127\.0\.0\.1:9 does not answer"):
        origin("models:/a/1", "http://127.0.0.1:9")


def test_a_version_outlives_its_run(tracking_uri, tmp_path):
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    run_id = put(tracking_uri, tmp_path, "first", "digits")
    with mock.patch.object(MlflowClient, "get_run", side_effect=MlflowException("gone")):
        facts = origin("models:/digits/1", tracking_uri)
    assert (facts.run_id, facts.threat, facts.clean_accuracy) == (None, ("Linf", 0.1), 0.875)
    assert origin("models:/digits/1", tracking_uri).run_id == run_id
    MlflowClient(tracking_uri).delete_run(run_id)  # a deleted run takes no report
    assert origin("models:/digits/1", tracking_uri).run_id is None

from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

from pipelines.errors import Failure, Misuse
from pipelines.tracking import export, registry, runs, server
from pipelines.tracking.journal import Journal
from trainers import models

METRICS = {"clean_accuracy": 0.91, "robust_accuracy": 0.5}
TAGS = {"threat": "Linf(eps=8/255)", "data_digest": "a" * 64, "token": "t0p"}


def classifier(name: str, size: tuple[int, int, int], **arguments: object) -> nn.Module:
    model = models.create(name, 10, size, mean=[0.4] * size[0], std=[0.2] * size[0], arguments=arguments)
    model.train()(torch.rand(4, *size))  # so that BatchNorm's running statistics are its own
    return model


NETS = {
    "digits": ("holdfast_resnet", (1, 8, 8), {"width": 4, "blocks": 3}),
    "resnet": ("resnet10t", (3, 32, 32), {}),
    "vit": ("vit_tiny_patch16_224", (3, 32, 32), {"depth": 2}),
}


@pytest.fixture
def run_id(tracking_uri) -> str:
    return runs.open_run(tracking_uri, "registry", "key", "a run", {})


def saved(tmp_path: Path, net: str = "digits") -> tuple[nn.Module, Path, tuple[int, int, int]]:
    name, size, arguments = NETS[net]
    model = classifier(name, size, **arguments)
    models.save(model, tmp_path / "saved")
    return model, tmp_path / "saved", size


def put(uri: str, run_id: str, tmp_path: Path, name: str | None = "digits") -> int | None:
    model, directory, size = saved(tmp_path)
    return registry.register(uri, run_id, model, directory, name, METRICS, TAGS, size)


def penalty(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    return gradient, torch.autograd.grad(gradient.square().sum(), x)[0]


@pytest.mark.parametrize("net", NETS)
def test_the_graph_is_the_network_for_every_batch_and_derivative(net, tmp_path, monkeypatch, recwarn, capfd):
    import mlflow.pytorch

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model, directory, size = saved(tmp_path, net)
    export.export(model, directory, size, tmp_path / "graph")
    assert not recwarn.list
    assert capfd.readouterr().err == ""
    assert model.training

    graph = mlflow.pytorch.load_model(str(tmp_path / "graph"))
    model.eval()
    for batch in (1, 2, 7):
        x = torch.rand(batch, *size).requires_grad_()
        torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)
        if batch == 7 and net != "vit":
            for theirs, ours in zip(penalty(graph, x), penalty(model, x), strict=True):
                torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)
    assert all(g.isfinite().all() for g in penalty(graph, x))
    assert graph.training
    with pytest.raises(NotImplementedError):
        graph.eval()


def test_a_version_loads_by_its_name_without_pickle_and_as_a_module(mlflow_server, tmp_path, monkeypatch):
    import mlflow.pytorch

    run_id = runs.open_run(mlflow_server.uri, "registry", str(tmp_path), "a run", {})
    model, directory, size = saved(tmp_path)
    assert registry.register(mlflow_server.uri, run_id, model, directory, tmp_path.name, METRICS, TAGS, size) == 1

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    x = torch.rand(3, *size)
    graph = mlflow.pytorch.load_model(f"models:/{tmp_path.name}/1")
    module = registry.load(f"models:/{tmp_path.name}/1")
    assert not module.training
    for loaded in (graph, module, registry.load(f"models:/{tmp_path.name}/1", mlflow_server.uri)):
        torch.testing.assert_close(loaded(x), model.eval()(x))
    assert module.train().training


def test_version_and_model_say_what_they_are(tracking_uri, run_id, tmp_path):
    journal = Journal(tracking_uri, run_id, tmp_path / "spool", system_seconds=None)
    journal.log(500, {"robust_accuracy": 0.5})
    assert journal.close(10) == 0
    assert put(tracking_uri, run_id, tmp_path) == 1

    client = server.client(tracking_uri)
    version = client.get_model_version("digits", "1")
    assert version.run_id == run_id
    assert version.tags["threat"] == "Linf(eps=8/255)"
    assert version.tags["data_digest"] == "a" * 64
    assert version.tags["metrics.robust_accuracy"] == "0.5"
    assert version.tags["token"] == "***"
    (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id], "metrics.robust_accuracy > 0.4")
    assert {m.key: (m.value, m.step) for m in model.metrics} == {
        "clean_accuracy": (0.91, 0),
        "robust_accuracy": (0.5, 500),
    }
    assert len(client.get_metric_history(run_id, "robust_accuracy")) == 1
    assert [o.model_id for o in client.get_run(run_id).outputs.model_outputs] == [model.model_id]


def test_the_same_run_is_registered_once(tracking_uri, run_id, tmp_path):
    assert put(tracking_uri, run_id, tmp_path) == 1
    assert put(tracking_uri, run_id, tmp_path) == 1
    assert put(tracking_uri, run_id, tmp_path, name="other") == 1
    assert put(tracking_uri, run_id, tmp_path, name=None) is None
    second = runs.open_run(tracking_uri, "registry", "second", "a run", {})
    assert put(tracking_uri, second, tmp_path) == 2
    client = server.client(tracking_uri)
    assert len(client.search_model_versions("name = 'digits'")) == 2
    assert len(client.search_logged_models([client.get_run(run_id).info.experiment_id])) == 2


@pytest.mark.parametrize("broken", ["log_model_artifacts", "finalize_logged_model", "create_model_version"])
def test_a_failure_leaves_nothing_half_made_and_can_be_repeated(tracking_uri, run_id, tmp_path, broken):
    from mlflow.tracking import MlflowClient

    leak = OSError("no space at https://me:hunter22@host/x")
    with (
        mock.patch.object(MlflowClient, broken, side_effect=leak),
        pytest.raises(Failure, match="run's last checkpoint, and the same command") as caught,
    ):
        put(tracking_uri, run_id, tmp_path)
    assert "hunter22" not in str(caught.value)
    client = server.client(tracking_uri)
    assert client.search_registered_models() == []
    left = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    assert [str(m.status) for m in left] == (["READY"] if broken == "create_model_version" else [])
    assert put(tracking_uri, run_id, tmp_path) == 1


def test_a_model_killed_in_mid_upload_is_cleared_away(tracking_uri, run_id, tmp_path):
    client = server.client(tracking_uri)
    experiment = client.get_run(run_id).info.experiment_id
    client.create_logged_model(experiment, "model", source_run_id=run_id, tags={"holdfast.run_id": run_id})
    assert put(tracking_uri, run_id, tmp_path) == 1
    assert [str(m.status) for m in client.search_logged_models([experiment])] == ["READY"]


def test_misuse_is_named(tracking_uri, run_id, tmp_path):
    with pytest.raises(Misuse, match="register_as='a/b'"):
        registry.check_name("a/b")
    with pytest.raises(Misuse, match=r"lacks model.json, weights.safetensors"):
        registry.register(tracking_uri, run_id, nn.Identity(), tmp_path, "digits", {}, {}, (1, 8, 8))
    with pytest.raises(Failure, match="models:/nothing/1 cannot be loaded"):
        registry.load("models:/nothing/1", tracking_uri)
    with pytest.raises(Failure, match="not registered by holdfast"):
        registry.load(str(tmp_path))

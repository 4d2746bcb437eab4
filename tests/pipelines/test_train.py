"""`holdfast train` on a real local Ray and a real MLflow database."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipelines.cli import FAILURE, MISUSE
from tests.pipelines.runs import metric_steps, train

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow makes its default database in the working folder."""
    monkeypatch.chdir(tmp_path)


REGISTERED = ("recipe=digits_gradnorm", "register_as=digits", "report.steps=5", "name=mine", "model.activation=relu")


@pytest.fixture(scope="module")
def registered(ray_cluster, tracking_template, tmp_path_factory) -> SimpleNamespace:
    """One run of one config, which several tests look at and run again."""
    folder = tmp_path_factory.mktemp("registered")
    shutil.copyfile(tracking_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return SimpleNamespace(folder=folder, uri=uri, outcome=train(folder, uri, *REGISTERED))


def test_one_config_gives_one_registered_model_that_loads_with_pickle_forbidden(registered, monkeypatch):
    outcome, tracking_uri = registered.outcome, registered.uri
    assert outcome["version"] == 1
    assert 0 <= outcome["metrics"]["robust_accuracy"] <= outcome["metrics"]["clean_accuracy"] <= 1
    assert outcome["metrics"]["test_examples"] == 540
    assert outcome["cost"]["standard_steps_a_step"] == pytest.approx(2, abs=0.2)

    import mlflow
    from mlflow import MlflowClient

    run = MlflowClient(tracking_uri).get_run(outcome["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["objective.weight"] == "1.2"
    version = MlflowClient(tracking_uri).get_model_version("digits", "1")
    assert outcome["doubts"]
    for tags in (run.data.tags, version.tags):
        assert "ReLU-like activations" in tags["doubts"]
    assert run.data.metrics["clean_accuracy"] == pytest.approx(outcome["metrics"]["clean_accuracy"])
    assert run.inputs.dataset_inputs[0].dataset.name == "digits"
    steps = metric_steps(tracking_uri, outcome["run_id"], "loss")
    assert steps == sorted(set(steps))

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(tracking_uri)
    exported = mlflow.pytorch.load_model("models:/digits/1")
    from pipelines.tracking import registry

    ordinary = registry.load("models:/digits/1", tracking_uri)
    x = torch.rand(3, 1, 8, 8, requires_grad=True)
    torch.testing.assert_close(exported(x), ordinary(x), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(exported(x).sum(), x)
    assert gradient.abs().sum() > 0
    assert ordinary.train().eval() is ordinary


def test_the_same_command_again_finds_its_run_and_registers_nothing_twice(registered):
    second = train(registered.folder, registered.uri, *REGISTERED)
    assert second["run_id"] == registered.outcome["run_id"]
    assert second["version"] == 1
    assert second["metrics"] == registered.outcome["metrics"]


def checkpoints(registered: SimpleNamespace) -> list[Path]:
    return sorted(path.parent for path in registered.folder.glob("runs/mine/checkpoint_*/state.safetensors"))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(registered):
    newest = checkpoints(registered)[-1]
    (newest / "state.safetensors").write_bytes(b"cut off")
    third = train(registered.folder, registered.uri, *REGISTERED)
    assert third["run_id"] == registered.outcome["run_id"]
    assert third["metrics"] == registered.outcome["metrics"]
    assert checkpoints(registered)[-1] != newest


def test_another_config_under_the_same_name_is_refused_before_a_run_is_opened(registered, capsys):
    changed = (*REGISTERED, "seed=1", "tracking.experiment=elsewhere")
    out = registered.folder / "outcome.json"
    before = out.read_bytes()
    train(registered.folder, registered.uri, *changed, code=MISUSE)
    assert "holds a run of another config" in capsys.readouterr().err
    assert out.read_bytes() == before
    from mlflow import MlflowClient

    assert MlflowClient(registered.uri).get_experiment_by_name("elsewhere") is None


def test_divergence_is_a_failure_that_names_the_remedy_and_is_not_retried(tmp_path, tracking_uri, capsys):
    train(tmp_path, tracking_uri, "recipe=digits_standard", "optimizer.lr=1e30", "clip_norm=null", code=FAILURE)
    message = capsys.readouterr().err
    assert "diverged" in message
    assert "Traceback" not in message


def test_more_workers_than_the_cluster_can_hold_are_refused(tmp_path, tracking_uri, capsys):
    train(tmp_path, tracking_uri, "recipe=digits_standard", "workers=32", code=2)
    assert "workers=32 is more than this cluster can ever hold" in capsys.readouterr().err

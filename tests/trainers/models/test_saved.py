"""A model on disk comes back as it was, or with a clear refusal."""

import json
import os

import pytest
import torch
from torch import nn

from trainers import models

CASES = {
    "resnet18": {"input_size": (3, 16, 16), "activation": {"name": "smooth_relu", "alpha": 50.0}},
    "convnext_atto": {"input_size": (3, 16, 16), "stem": "small", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)},
    "vit_tiny_patch16_224": {"input_size": (1, 8, 8), "second_order": True, "arguments": {"depth": 1}},
    "holdfast_resnet": {"input_size": (1, 8, 8), "arguments": {"width": 8, "blocks": 2}, "mean": (0.3,), "std": (0.4,)},
}


def trained(name, seed=3):
    """A model whose every tensor, BatchNorm statistics included, has moved from where ``create`` put it."""
    model = models.create(name, 4, **CASES[name], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.01 * torch.randn(p.shape, generator=generator)
        model(torch.rand(8, *model.spec["input_size"], generator=generator))
    return model


@pytest.fixture
def saved(tmp_path):
    model = trained("holdfast_resnet")
    models.save(model, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_gives_the_same_logits_to_the_bit(name, tmp_path):
    model = trained(name)
    models.save(model, tmp_path)
    loaded = models.load(tmp_path)
    x = torch.rand(5, *model.spec["input_size"], generator=torch.Generator().manual_seed(9))
    assert torch.equal(loaded(x), model.eval()(x))
    assert loaded.spec == model.spec
    assert not loaded.training
    assert sorted(os.listdir(tmp_path)) == ["model.json", "weights.safetensors"]


@pytest.mark.parametrize("name", CASES)
def test_the_spec_is_plain_data_that_creates_the_same_architecture(name):
    model = trained(name)
    again = models.create(**json.loads(json.dumps(model.spec)))
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    assert {k: v.shape for k, v in again.state_dict().items()} == shapes
    assert again.spec == model.spec


def test_loading_leaves_the_generator_alone(saved):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    models.load(saved)
    assert torch.equal(torch.rand(2), expected)


def test_a_failed_write_leaves_what_was_there(saved, monkeypatch):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"weights\.safetensors could not be written .*No space left.*free space"):
        models.save(trained("holdfast_resnet", seed=4), saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


def test_a_pair_torn_apart_by_a_crash_is_noticed(saved, tmp_path):
    models.save(trained("holdfast_resnet", seed=4), tmp_path / "other")
    (tmp_path / "other" / "weights.safetensors").replace(saved / "weights.safetensors")
    with pytest.raises(ValueError, match=r"truncated or belongs to another model\.json"):
        models.load(saved)


def test_truncated_and_missing_files_are_refused(saved, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere/model\.json does not exist; give a directory written by"):
        models.load(tmp_path / "nowhere")
    weights = saved / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="truncated"):
        models.load(saved)
    weights.unlink()
    with pytest.raises(ValueError, match=r"has no weights\.safetensors"):
        models.load(saved)
    text = (saved / "model.json").read_text()
    (saved / "model.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"model\.json is truncated or not JSON"):
        models.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["spec"].update(colour="red"), r"unknown spec keys \['colour'\]; read it with the version"),
        (lambda d: d["spec"].pop("stem"), r"missing spec keys \['stem'\]"),
        (lambda d: d.pop("weights_sha256"), r"is incomplete: no weights_sha256"),
        (lambda d: d.update(format=2), r"is not a model of format 1"),
        (lambda d: d["spec"].update(arguments={"width": 8, "blocks": 3}), r"does not fit its model\.json"),
    ],
)
def test_a_spec_this_version_does_not_know_is_refused(saved, change, message):
    written = json.loads((saved / "model.json").read_text())
    change(written)
    (saved / "model.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=message):
        models.load(saved)


def test_a_module_that_cannot_be_rebuilt_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a Linear cannot be saved"):
        models.save(nn.Linear(2, 2), tmp_path)

"""What ``create`` builds, and what it refuses."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub.constants
import pytest
import timm
import torch
from torch import nn

from trainers import models
from trainers.activations import smooth
from trainers.models import hub

TINY = {"name": "holdfast_resnet", "num_classes": 4, "input_size": (1, 8, 8), "arguments": {"width": 8}}


def image(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def test_pixels_are_normalised_first_by_constants_that_do_not_train():
    size = (3, 8, 8)
    model = models.create("holdfast_resnet", 4, size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.5)).eval()
    x = image(2, *size)
    by_hand = torch.stack([(x[:, c] - m) / s for c, (m, s) in enumerate([(0.5, 0.2), (0.4, 0.1), (0.3, 0.5)])], 1)
    torch.testing.assert_close(model(x), model.network(by_hand))
    assert not [name for name, _ in model.named_parameters() if name.startswith("normalize")]


@pytest.mark.parametrize(("width", "blocks"), [(24, 3), (24, 7), (8, 1)])
def test_holdfast_resnet_is_as_deep_and_wide_as_asked(width, blocks):
    model = timm.create_model("holdfast_resnet", num_classes=10, in_chans=2, width=width, blocks=blocks)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 1 + 2 * blocks
    assert {m.out_channels for m in convolutions} == {width}
    assert model(image(2, 2, 8, 8)).shape == (2, 10)
    assert model.forward_features(image(2, 2, 32, 32)).shape == (2, width, 32, 32)


def test_random_weights_are_fixed_by_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = models.create(**TINY, seed=1, second_order=True, activation="gelu")
    assert torch.equal(torch.rand(3), expected)
    second, other = models.create(**TINY, seed=1, second_order=True, activation="gelu"), models.create(**TINY, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.network.conv1.weight, other.network.conv1.weight)


def test_trying_the_model_leaves_no_trace_in_it():
    model = models.create(**TINY, second_order=True, activation="gelu")
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert torch.equal(model.network.bn1.running_mean, torch.zeros(8))


@pytest.mark.parametrize("activation", ["celu", {"name": "celu"}, {"name": "celu", "alpha": 2.0}])
def test_activation_is_a_name_or_a_name_with_parameters(activation):
    model = models.create(**TINY, activation=activation)
    sites = [m for m in model.modules() if isinstance(m, smooth.CELU)]
    assert len(sites) == 1 + 2 * 3
    assert sites[0].alpha == (1.0 if activation in ("celu", {"name": "celu"}) else 2.0)
    assert models.kink_sites(model) == []
    assert len(models.kink_sites(models.create(**TINY))) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet19"}, r"model\.name='resnet19' is not a timm model; nearest: resnet1"),
        ({"name": "resnet18.a1_in2k"}, r"model\.name='resnet18\.a1_in2k' has an unknown tag; nearest: resnet18"),
        ({"activation": "gellu"}, r"model\.activation='gellu' is unknown; nearest: gelu"),
        ({"activation": {"alpha": 1}}, r"model\.activation=.* has no name"),
        (
            {"activation": {"name": "elu", "beta": 1}},
            r"model\.activation_parameters\.beta=1 is not a parameter of 'elu'",
        ),
        ({"mean": (0.5, 0.5)}, r"data\.mean=\[0\.5, 0\.5\] must have 1 values"),
        ({"std": (0.0,)}, r"data\.std=\[0\.0\] must be above 0"),
        ({"stem": "tiny"}, r"model\.stem='tiny' is unknown; choose auto, small or standard"),
        ({"input_size": (8, 8)}, r"data\.input_size=\[8, 8\] must be \(channels, height, width\)"),
        ({"num_classes": 0}, r"data\.source\.class_names gives 0 classes"),
        ({"arguments": {"blocks": 0}}, r"model\.arguments\.blocks=0 must be 1 or more"),
        ({"arguments": {"depth": 3}}, r"'depth': 3.*unexpected keyword argument.*check model\.arguments"),
        ({"arguments": {"num_classes": 3}}, r"model\.arguments\.num_classes=3 follows from data"),
        ({"weights": "timm"}, r"model\.weights='timm': timm has none for model\.name='holdfast_resnet'"),
    ],
)
def test_misuse_names_setting_value_and_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        models.create(**TINY | change)


def test_a_relu_called_as_a_function_cannot_hide():
    with pytest.raises(ValueError, match=r"model\.activation='gelu': 'mobilevitv2_050' calls ReLU as a function"):
        models.create("mobilevitv2_050", 4, (3, 64, 64), activation="gelu")


def test_a_hub_that_cannot_be_reached_is_named_at_once_with_the_way_out(monkeypatch):
    for name, value, reason in (
        ("ENDPOINT", "http://127.0.0.1:9", "http://127.0.0.1:9: .*refused"),
        ("HF_HUB_OFFLINE", True, "HF_HUB_OFFLINE is set"),
    ):
        monkeypatch.setattr(huggingface_hub.constants, name, value)
        message = rf"model\.weights='timm': the weights of 'resnet18\.a1_in1k' .*\({reason}\).*local copy"
        with pytest.raises(ValueError, match=message):
            models.create("resnet18.a1_in1k", 10, (3, 64, 64), weights="timm")


def test_a_hub_that_answers_or_a_full_cache_lets_timm_try(monkeypatch, tmp_path):
    def fetched(*_: object, **__: object) -> None:
        raise RuntimeError("the hub's client was asked")

    monkeypatch.setattr(timm, "create_model", fetched)
    cached = {"value": None}
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: cached["value"])
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # answers 501 to everything
        monkeypatch.setattr(BaseHTTPRequestHandler, "log_message", lambda *_: None)
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(ValueError, match="the hub's client was asked"):
            models.create("resnet18.a1_in1k", 10, (3, 64, 64), weights="timm")
    cached["value"] = str(tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the hub's client was asked"):
        models.create("resnet18.a1_in1k", 10, (3, 64, 64), weights="timm")

"""Swapping activations in real timm networks."""

import pytest
import timm
import torch
from torch import nn

from trainers.activations import smooth
from trainers.activations.replace import NAMES, kink_sites, make, replace

NETWORKS = {
    # name: (arguments, activation sites, image side)
    "resnet18": ({}, 17, 32),
    "resnet50": ({}, 49, 32),
    "convnext_atto": ({"ls_init_value": 1.0}, 12, 32),
    "efficientnet_b0": ({}, 49, 32),
    "vit_tiny_patch16_224": ({"img_size": 16, "patch_size": 8}, 12, 16),
    "swin_tiny_patch4_window7_224": ({"img_size": 32, "patch_size": 4, "window_size": 2}, 12, 32),
}


def modules(model, kind):
    return [m for m in model.modules() if isinstance(m, kind)]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_site_of_a_timm_network_gets_its_own_module(name):
    arguments, sites, side = NETWORKS[name]
    model = timm.create_model(name, num_classes=3, **arguments).eval()
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    gates = [k for k, m in model.named_modules() if k.endswith("gate")]
    kinds = {k: type(model.get_submodule(k)) for k in gates}
    before = model(x)
    assert replace(model, "smooth_relu", alpha=100) == sites
    new = modules(model, smooth.SmoothReLU)  # modules() lists a shared instance once
    assert len(new) == sites
    assert not modules(model, (nn.ReLU, nn.GELU, nn.SiLU))
    assert {k: type(model.get_submodule(k)) for k in gates} == kinds
    after = model(x)
    assert (after - before).abs().max() > 1e-6
    after.sum().backward()
    # sites with dead inputs aside, every site's own parameter is reached
    assert sum(m.raw.grad is not None for m in new) == sites


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_can_be_put_in(name):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2), nn.Sigmoid())
    assert replace(model, name) == 1
    assert type(model[1]) is NAMES[name]
    assert isinstance(model[3], nn.Sigmoid)
    assert not getattr(model[1], "inplace", False)


def test_the_same_function_put_in_leaves_the_logits_alone():
    model = timm.create_model("convnext_atto", num_classes=3, ls_init_value=1.0).eval()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = model(x)
    replace(model, "gelu")
    torch.testing.assert_close(model(x), before)


def test_a_shared_instance_becomes_one_module_a_site():
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act)
    assert replace(model, "gelu") == 2
    assert model[1] is not model[3]


def test_new_modules_take_over_dtype_and_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).double().eval()
    replace(model, "smooth_relu")
    assert model[1].raw.dtype == torch.float64
    assert not model[1].training


def test_kinks_are_named_and_gone_after_a_smooth_replacement():
    model = timm.create_model("resnet18", num_classes=3)
    assert len(kink_sites(model)) == 17
    assert "layer1.0.act2" in kink_sites(model)
    replace(model, "gelu")
    assert kink_sites(model) == []
    replace(model, "relu")
    assert len(kink_sites(model)) == 17


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"model\.activation='geluu' is unknown; nearest: gelu"):
        make("geluu")


def test_an_unknown_parameter_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"model\.activation_parameters\.alhpa=1 is not a parameter of 'celu'; nearest: alpha"
    ):
        make("celu", alhpa=1)
    with pytest.raises(ValueError, match=r"is not a parameter of 'silu'; it has none"):
        make("silu", alpha=1)


def test_a_network_without_activation_modules_is_refused_and_left_alone():
    with pytest.raises(ValueError, match="Sequential has no activation module to replace"):
        replace(nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()), "gelu")


def test_a_refused_name_changes_nothing():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(ValueError, match="unknown"):
        replace(model, "swush")
    assert isinstance(model[1], nn.ReLU)

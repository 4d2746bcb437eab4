"""Networks under a gradient penalty: differentiable twice, and rightly so."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn, use_fused_attn
from timm.models import register_model
from torch import nn

from trainers import models
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.penalties.gradient_norm import GradientNorm
from trainers.threat import Linf

SWIN = {"depths": [2, 1, 1, 1], "embed_dim": 24}
CASES = {
    "vit_tiny_patch16_224": ({"depth": 2}, (3, 32, 32)),
    "swin_tiny_patch4_window7_224": (SWIN, (3, 32, 32)),
    "resnet18": ({}, (3, 16, 16)),
    "efficientnet_b0": ({}, (3, 16, 16)),
    "holdfast_resnet": ({"blocks": 2}, (3, 8, 8)),
}


class Fused(nn.Module):
    """One attention layer that nothing can unfuse."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act, self.head = nn.Linear(3 * 8, 16), nn.GELU(), nn.Linear(16, 4)

    def forward(self, x):
        tokens = self.act(self.embed(x.transpose(1, 2).flatten(2)))
        return self.head(F.scaled_dot_product_attention(tokens, tokens, tokens).mean(1))


@register_model
def holdfast_test_fused(pretrained=False, **_):
    return Fused()


class MultiHead(Fused):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(16, 2, batch_first=True), need_weights

    def forward(self, x):
        tokens = self.act(self.embed(x.transpose(1, 2).flatten(2)))
        return self.head(self.attention(tokens, tokens, tokens, need_weights=self.need_weights)[0].mean(1))


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_penalty_reaches_every_parameter(name):
    arguments, size = CASES[name]
    model = models.create(name, 4, size, activation="gelu", second_order=True, arguments=arguments)
    x, y = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 3])
    penalty_alone = GradientRegularized(GradientNorm(Linf(8 / 255)), weight=1.0, loss_weight=0.0)
    loss, _ = penalty_alone(model.eval(), x, y)
    loss.backward()
    # the last bias enters through the softmax too, so nothing is left out
    untouched = [n for n, p in model.named_parameters() if p.grad is None]
    assert not untouched
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert loss > 0


def test_the_second_derivative_of_a_small_swin_is_the_numeric_one():
    model = models.create(
        "swin_tiny_patch4_window7_224", 4, (1, 8, 8), second_order=True, arguments=SWIN, activation="gelu"
    ).double()
    x, y = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 2])
    objective = GradientRegularized(GradientNorm(Linf(0.1)), weight=5.0)
    weight = model.network.layers[0].blocks[0].attn.qkv.weight
    loss, _ = objective(model.eval(), x, y)
    loss.backward()
    direction, h = weight.grad / weight.grad.norm(), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * h * direction
            values.append(objective(model, x, y)[0].item())
            weight -= sign * h * direction
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(weight.grad.norm().item(), rel=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_unfused_only_where_asked_and_timms_setting_stays(fused):
    before = use_fused_attn()
    try:
        set_fused_attn(fused)
        flags = {}
        for second_order in (True, False):
            model = models.create(
                "vit_tiny_patch16_224", 4, (3, 16, 16), second_order=second_order, arguments={"depth": 1}
            )
            flags[second_order] = model.network.blocks[0].attn.fused_attn
        assert flags == {True: False, False: fused}
        assert use_fused_attn() is fused
    finally:
        set_fused_attn(before)


def test_nothing_works_in_place_under_a_second_derivative():
    model = models.create("resnet18", 4, (3, 16, 16), second_order=True)
    assert not [n for n, m in model.named_modules() if getattr(m, "inplace", False)]
    assert [n for n, m in models.create("resnet18", 4, (3, 16, 16)).named_modules() if getattr(m, "inplace", False)]


def test_fused_attention_that_cannot_be_switched_off_is_refused():
    with pytest.raises(ValueError, match=r"model\.name='holdfast_test_fused' .* scaled_dot_product_attention"):
        models.create("holdfast_test_fused", 4, (3, 8, 8), second_order=True)
    assert models.create("holdfast_test_fused", 4, (3, 8, 8)).spec["name"] == "holdfast_test_fused"


def test_fused_attention_is_refused_even_where_this_machines_kernel_manages():
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        pytest.raises(ValueError, match="scaled_dot_product_attention"),
    ):
        models.check_second_order(Fused(), (3, 8, 8))


def test_multi_head_attention_is_refused_when_it_is_fused():
    with pytest.raises(ValueError, match="cannot train under a gradient penalty"):
        models.check_second_order(MultiHead(need_weights=False), (3, 8, 8))
    models.check_second_order(MultiHead(need_weights=True), (3, 8, 8))


def test_a_missing_second_derivative_is_named():
    with pytest.raises(ValueError, match=r"'mobilenetv3_small_050' .*hardsigmoid_backward.*choose one that can"):
        models.create("mobilenetv3_small_050", 4, (3, 32, 32), second_order=True)

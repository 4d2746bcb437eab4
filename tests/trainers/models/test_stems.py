"""Small images keep their resolution at the entrance."""

import pytest
import torch
from torch import nn

from trainers import models
from trainers.models import stems


def side(model):
    """Positions a side of the last feature map, (N, C, H, W) or (N, H, W, C), or tokens, (N, L, C)."""
    with torch.no_grad():
        return model.eval().network.forward_features(torch.zeros(1, *model.spec["input_size"])).shape[-2]


@pytest.mark.parametrize(
    ("name", "small", "standard"),
    [
        ("resnet18", 4, 1),
        ("resnet18d", 4, 1),
        ("convnext_atto", 4, 1),
        ("efficientnet_b0", 2, 1),
        ("resnetv2_18", 4, 1),
    ],
)
def test_convolutional_networks_lose_less_resolution_at_32_pixels(name, small, standard):
    assert side(models.create(name, 10, (3, 32, 32))) == small
    assert side(models.create(name, 10, (3, 32, 32), stem="standard")) == standard


def test_the_resnet_stem_is_the_cifar_one():
    network = models.create("resnet18", 10, (3, 32, 32)).network
    assert (network.conv1.kernel_size, network.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(network.maxpool, nn.Identity)
    standard = models.create("resnet18", 10, (3, 64, 64)).network
    assert (standard.conv1.kernel_size, standard.conv1.stride) == ((7, 7), (2, 2))
    assert isinstance(standard.maxpool, nn.MaxPool2d)


@pytest.mark.parametrize(
    ("name", "size", "positions"),
    [
        ("vit_tiny_patch16_224", 32, 65),
        ("vit_tiny_patch16_224", 28, 50),
        ("vit_tiny_patch16_224", 8, 65),
        ("swin_tiny_patch4_window7_224", 32, 2),
        ("swin_tiny_patch4_window7_224", 8, 1),
    ],
)
def test_patch_networks_get_patches_that_leave_enough_tokens(name, size, positions):
    model = models.create(name, 10, (1, size, size), arguments={"depths": [1, 1, 1, 1]} if "swin" in name else None)
    assert side(model) == positions
    assert model(torch.rand(2, 1, size, size)).shape == (2, 10)


def test_a_patch_size_that_was_asked_for_wins():
    model = models.create("vit_tiny_patch16_224", 10, (3, 32, 32), arguments={"patch_size": 16, "depth": 1})
    assert side(model) == 5


def test_patch_networks_take_any_larger_size_too():
    model = models.create("vit_tiny_patch16_224", 10, (3, 64, 64), arguments={"depth": 1})
    assert (model.spec["stem"], side(model)) == ("standard", 17)


def test_images_too_small_for_any_known_stem_are_refused():
    with pytest.raises(ValueError, match=r"model\.name='inception_v3' .* cannot take \(3, 32, 32\) images"):
        models.create("inception_v3", 10, (3, 32, 32))


def test_where_no_small_stem_is_known_the_standard_one_must_leave_two_positions(monkeypatch):
    monkeypatch.setattr(stems, "shrink", lambda network, pretrained: False)
    with pytest.raises(ValueError, match=r"model\.stem=auto: no small stem is known .* to \(1, 1\)"):
        models.create("resnet18", 10, (3, 32, 32))
    with pytest.raises(ValueError, match=r"model\.stem=small is not known for model\.name='resnet18'"):
        models.create("resnet18", 10, (3, 64, 64), stem="small")


def test_a_small_stem_does_not_throw_pretrained_weights_away():
    network = models.create("resnet18", 10, (3, 64, 64)).network
    with pytest.raises(ValueError, match=r"model\.stem=small would replace the 7x7 convolution 'conv1'"):
        stems.shrink(network, pretrained=True)
    assert network.conv1.kernel_size == (7, 7)

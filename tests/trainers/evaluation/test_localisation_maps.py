"""Maps against linear networks, whose gradient and class maps are their weights."""

import copy

import pytest
import timm
import torch
from torch import nn

from trainers.evaluation.localisation import CAM, GradCAM, GradientMap
from trainers.evaluation.localisation.features import last_feature_map
from trainers.models.classifier import Classifier, Normalize
from trainers.models.holdfast_resnet import HoldfastResNet

PLAIN = {"low": 0.0, "high": 1.0, "window": 1, "sigma": 0.0}
SMALL = GradientMap(sigma=0.5)


def linear(classes=5, shape=(3, 6, 6)):
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes)).double()


class Pooled(nn.Module):
    """A 3x3 convolution with ReLU, the mean over space, one linear map."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 7, 3, stride=2, padding=1), nn.ReLU(), nn.Linear(7, 5)
        self.gain = gain

    def forward(self, x):
        features = self.act(self.conv(x))
        return self.head(self.gain * features.mean((2, 3)) if self.gain else features.amax((2, 3)))


def scaled(maps):
    low, high = maps.flatten(1).amin(1)[:, None, None], maps.flatten(1).amax(1)[:, None, None]
    return (maps - low) / (high - low)


def test_the_map_of_a_linear_logit_is_its_weights(images, labels):
    model = linear()
    weights = model[1].weight.detach()[labels].reshape(images.shape).abs().mean(1)
    gradient = GradientMap(of="logit", **PLAIN)
    torch.testing.assert_close(gradient.steepness(model, images, labels), weights)
    torch.testing.assert_close(gradient(model, images, labels), scaled(weights))


def test_the_map_of_the_loss_is_the_weights_under_the_error_of_the_softmax(images, labels):
    """``∇_x CE = Wᵀ (p - e_y)``."""
    model = linear()
    error = model(images).softmax(1).detach() - nn.functional.one_hot(labels, 5)
    expected = (error @ model[1].weight.detach()).reshape(images.shape).abs().mean(1)
    torch.testing.assert_close(GradientMap().steepness(model, images, labels), expected)


def test_without_a_class_the_predicted_one_is_explained(small_net, images, labels):
    model = small_net()
    predicted = model(images).argmax(1)
    for maps in (SMALL, GradCAM(layer="3")):
        assert torch.equal(maps(model, images), maps(model, images, predicted))
    assert not torch.equal(SMALL(model, images), SMALL(model, images, (predicted + 1) % 5))


def test_soft_targets_are_explained_by_their_largest_class(small_net, images, soft_labels):
    model = small_net()
    assert torch.equal(SMALL(model, images, soft_labels), SMALL(model, images, soft_labels.argmax(1)))


def test_the_batch_s_extremes_and_standardisation_would_change_nothing(images, labels):
    """The two published steps that are left out follow a scale and a shift of each image."""
    model, plain = linear(), GradientMap(of="logit", window=1, sigma=0)
    steep = plain.steepness(model, images, labels)
    whole = ((steep - steep.min()) / (steep.max() - steep.min())).flatten(1)
    standard = (whole - whole.mean(1, keepdim=True)) / whole.std(1, keepdim=True)
    clipped = torch.stack([row.clamp(row.quantile(0.02), row.quantile(0.98)) for row in standard])
    torch.testing.assert_close(plain(model, images, labels), scaled(clipped.reshape(steep.shape)))


@pytest.mark.parametrize("maps", [SMALL, GradientMap(of="logit", sigma=1.0), GradCAM(layer="3")])
def test_maps_are_in_the_unit_interval_and_owe_nothing_to_the_batch(small_net, images, labels, maps):
    model = small_net()
    together = maps(model, images, labels)
    assert together.shape == (8, 6, 6)
    assert together.min() >= 0
    assert together.max() <= 1
    alone = torch.cat([maps(model, images[i : i + 1], labels[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(together, alone)


def test_smoothing_keeps_a_constant_and_the_mean_counts_only_pixels_that_are_there():
    class Corner(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0, 0, 0], 0 * x[:, 0, 0, 0]], 1)

    x, y = torch.rand(1, 1, 12, 12), torch.tensor([0])
    averaged = GradientMap(of="logit", low=0, high=1, window=3, sigma=0)(Corner(), x, y)
    assert averaged[0, 0, 0] == pytest.approx(1 / 4)
    assert averaged[0, 1, 1] == pytest.approx(1 / 9)
    assert averaged[0, 2:].abs().max() == 0


@pytest.mark.parametrize("model", [Pooled().double(), HoldfastResNet(in_chans=3, num_classes=5, width=4).double()])
def test_grad_cam_is_cam_where_the_head_is_linear_in_the_mean(images, labels, model):
    cam = CAM()(model, images, labels)
    assert cam.amax() == 1
    torch.testing.assert_close(GradCAM()(model, images, labels), cam)


def test_cam_is_the_head_s_weights_on_the_features(images, labels):
    model = Pooled().double()
    features = model.act(model.conv(images)).detach()
    raw = (model.head.weight.detach()[labels][:, :, None, None] * features).sum(1).relu()
    resized = nn.functional.interpolate(raw[:, None], (6, 6), mode="bilinear")[:, 0]
    expected = resized / resized.flatten(1).amax(1)[:, None, None].clamp_min(1e-12)
    torch.testing.assert_close(CAM()(model, images, labels), expected)


@pytest.mark.parametrize("gain", [0.0, 2.0])
def test_cam_refuses_a_head_that_is_no_linear_map_of_the_mean(images, labels, gain):
    with pytest.raises(ValueError, match=r"no linear map of the mean of act.*Grad-CAM"):
        CAM()(Pooled(gain).double(), images, labels)
    assert GradCAM()(Pooled(gain).double(), images, labels).shape == (8, 6, 6)


def test_cam_refuses_a_network_without_a_linear_head(images):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with pytest.raises(ValueError, match="ends in no linear layer"):
        CAM()(model, images)


def test_a_timm_network_with_normalisation_before_it():
    network = timm.create_model("resnet18", num_classes=4).eval()
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), network, {})
    x, y = torch.rand(2, 3, 64, 64), torch.tensor([1, 3])
    assert last_feature_map(model, x) == "network.layer4"
    torch.testing.assert_close(GradCAM()(model, x, y), CAM()(model, x, y), rtol=1e-4, atol=1e-5)
    assert GradCAM("network.layer2")(model, x, y).shape == (2, 64, 64)


def test_a_layer_whose_output_is_overwritten_in_place():
    """timm adds the shortcut onto bn2's output, in place: Grad-CAM is of what bn2 gave."""
    model = timm.create_model("resnet18", num_classes=4, zero_init_last=False).eval()
    x = torch.rand(1, 3, 64, 64)
    out_of_place = copy.deepcopy(model)
    seen = []
    out_of_place.layer4[1].bn2.register_forward_hook(lambda m, args, out: seen.append(out.clone()) or seen[-1] + 0)
    logits = out_of_place(x)
    (slope,) = torch.autograd.grad(logits[0, 2], seen[0])
    raw = (slope.mean((2, 3), keepdim=True) * seen[0]).sum(1, keepdim=True).relu().detach()
    resized = nn.functional.interpolate(raw, (64, 64), mode="bilinear")[:, 0]
    assert resized.max() > 0
    torch.testing.assert_close(
        GradCAM("layer4.1.bn2")(model, x, torch.tensor([2])), resized / resized.max(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_has_no_last_feature_map_but_a_gradient(name):
    arguments = {"depth": 2} if name.startswith("vit") else {"depths": (1, 1, 1, 1), "embed_dim": 24}
    model = timm.create_model(name, num_classes=3, img_size=56 if name.startswith("vit") else 224, **arguments).eval()
    x = torch.rand(1, 3, 56, 56) if name.startswith("vit") else torch.rand(1, 3, 224, 224)
    with pytest.raises(ValueError, match=r"no last feature map.*name a layer"):
        GradCAM()(model, x)
    assert GradientMap(sigma=3)(model, x).max() > 0
    assert GradCAM("patch_embed.proj")(model, x).shape == (1, *x.shape[-2:])


@pytest.mark.parametrize(
    ("layer", "message"),
    [("no.such", r"layer='no.such' is no layer.*there is"), ("7", r"layer=7 gives \(8, 5\).*no feature map")],
)
def test_layers_that_hold_no_map_are_refused(small_net, images, layer, message):
    model = small_net()
    with pytest.raises(ValueError, match=message):
        GradCAM(layer)(model, images)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("maps", [SMALL, GradCAM(), CAM()])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_network_is_left_as_it_was_and_callers_may_have_turned_gradients_off(images, labels, maps, context):
    model = HoldfastResNet(in_chans=3, num_classes=5, width=4, blocks=1).double().train()
    model.fc.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = maps(model, images, labels)
    with context():
        assert torch.equal(maps(model, images.clone(), labels.clone()), expected)
    assert all(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["fc.bias"]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


class Rounded(nn.Module):
    def __init__(self, before: bool) -> None:
        super().__init__()
        self.inner, self.before = Pooled().double(), before

    def forward(self, x):
        return self.inner((4 * x).detach().round() / 4) if self.before else self.inner(x).detach()


def test_a_network_that_hides_its_gradient_gives_a_map_of_zeros(images, labels):
    assert SMALL(Rounded(True), images, labels).abs().max() == 0
    assert GradCAM()(Rounded(False), images, labels).abs().max() == 0
    assert GradCAM()(Rounded(True), images, labels).max() == 1  # its features are there all the same


def test_a_gradient_that_is_no_number_gives_a_map_of_zeros(images, labels):
    images[3, 0, 2, 2] = torch.nan
    maps = GradientMap(sigma=0.5)(linear(), images, labels)
    assert maps[3].abs().max() == 0
    assert (maps.flatten(1).amax(1) > 0).sum() == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "margin"}, "of='margin' must be 'loss' or 'logit'"),
        ({"low": 0.5, "high": 0.5}, "low=0.5 and high=0.5 must be quantiles"),
        ({"window": 2}, "window=2 must be an odd number"),
        ({"sigma": -1.0}, "sigma=-1 must be 0 pixels or more"),
    ],
)
def test_settings_out_of_their_range(settings, message):
    with pytest.raises(ValueError, match=message):
        GradientMap(**settings)


def test_images_that_are_smaller_than_the_blur(small_net, images):
    with pytest.raises(ValueError, match=r"sigma=3 blurs over 9 pixels.*\(6, 6\) are too small; lower it"):
        GradientMap()(small_net(), images)

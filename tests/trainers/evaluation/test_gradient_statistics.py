"""Groups, channels and tails of input gradients, each against what follows from its definition."""

import math
from itertools import pairwise

import pytest
import torch
import torch.multiprocessing as processes
from torch import nn

from trainers import noise
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.evaluation.gradient_statistics import (
    ChannelGradients,
    GradientGroups,
    GradientTails,
    gradients,
    kurtosis,
    mean,
    tails,
)
from trainers.evaluation.gradients import GradientNorms
from trainers.threat import Linf
from trainers.types import Batch


def in_two(images, labels, keys):
    return [Batch(images[:3], labels[:3], keys[:3]), Batch(images[3:], labels[3:], keys[3:])]


def seen_rightly(model, images):
    """Labels of which all but the first and the last are what ``model`` says."""
    labels = model(images).argmax(1)
    labels[[0, -1]] = (labels[[0, -1]] + 1) % 5
    return labels


def test_the_groups_make_up_the_mean(small_net, images, keys):
    model = small_net()
    labels = seen_rightly(model, images)
    probe = GradientGroups(PGD(Linf(0.05), steps=3))
    found = dict(probe(model, in_two(images, labels, keys)))
    assert found["correct_share"] == 6 / 8
    assert 0 < found["robust_share"] < 6 / 8, "the images must differ for this test to say anything"
    for inside, outside in (("correct", "incorrect"), ("robust", "vulnerable")):
        p = found[f"{inside}_share"]
        whole = p * found[f"gradient_l1_{inside}"] + (1 - p) * found[f"gradient_l1_{outside}"]
        assert whole == pytest.approx(found["gradient_l1"], rel=1e-14)
    norms = dict(GradientNorms()(model, in_two(images, labels, keys)))
    assert found["gradient_l1"] == pytest.approx(norms["gradient_l1"], rel=1e-14)


def test_each_image_is_in_the_group_that_its_own_attack_puts_it_in(small_net, images, keys):
    model, attack = small_net(), FGSM(Linf(0.02))
    labels = seen_rightly(model, images)
    ids, rows = GradientGroups(attack).values(model, in_two(images, labels, keys))
    right = model(images).argmax(1) == labels
    survives = right & (model(attack(model, images, labels, keys)).argmax(1) == labels)
    assert torch.equal(ids, keys)
    assert torch.equal(rows[:, 1] == 1, right)
    assert torch.equal(rows[:, 2] == 1, survives)


def test_a_group_without_examples_has_no_mean(small_net, images, keys):
    model = small_net()
    found = dict(GradientGroups(FGSM(Linf(0)))(model, [Batch(images, model(images).argmax(1), keys)]))
    assert found["robust_share"] == found["correct_share"] == 1
    assert not {"gradient_l1_incorrect", "gradient_l1_vulnerable"} & set(found)
    assert found["gradient_l1_robust"] == found["gradient_l1"]


def test_no_examples_are_refused(small_net):
    for probe in (GradientGroups(FGSM(Linf(0.1))), GradientTails()):
        with pytest.raises(ValueError, match=r"no examples to measure.*choose another"):
            dict(probe(small_net(), []))


class Weighed(nn.Module):
    """Logits ``±Σ_c weight_c · Σ_pixels x_c``: each channel's gradient is in proportion to its weight."""

    def forward(self, x):
        score = (x.sum((2, 3)) * torch.tensor([1.0, -2.0, 5.0], dtype=x.dtype)).sum(1)
        return torch.stack([score, -score], 1) / 50


def test_the_share_of_a_channel_is_that_of_its_weight(images, labels, keys):
    found = dict(ChannelGradients()(Weighed(), in_two(images, labels % 2, keys)))
    assert found == pytest.approx(
        {"gradient_share_red": 1 / 8, "gradient_share_green": 2 / 8, "gradient_share_blue": 5 / 8}
    )


def test_the_histogram_holds_every_pixel_in_its_bin(small_net, images, labels, keys):
    model = small_net()
    edges, counts = ChannelGradients(smallest=-3, largest=-1, bins=4).histogram(model, in_two(images, labels, keys))
    g = gradients(model, Batch(images, labels, keys))[0].abs()
    assert (counts.sum(1) == 8 * 36).all()
    assert edges[[0, -1]].tolist() == pytest.approx([1e-3, 1e-1])
    bounds = [0.0, *edges.tolist(), math.inf]
    for channel in range(3):
        for place, (low, high) in enumerate(pairwise(bounds)):
            assert counts[channel, place] == ((g[:, channel] >= low) & (g[:, channel] < high)).sum()
    assert (counts[:, 1:-1].sum(0) > 0).all(), "every bin must be used for this test to say anything"


def test_channels_that_are_not_those_of_the_images_are_refused(small_net, images, labels, keys):
    with pytest.raises(ValueError, match=r"channels=\('grey',\) name 1, the images have 3"):
        dict(ChannelGradients(channels=("grey",))(small_net(), [Batch(images, labels, keys)]))
    with pytest.raises(ValueError, match=r"smallest=0, largest=0.*smallest below largest"):
        ChannelGradients(smallest=0, largest=0)


def test_tails_of_a_normal_distribution_are_its_own():
    g = noise.normal(torch.arange(4), (400_000,), torch.float64)
    torch.testing.assert_close(kurtosis(g), torch.full((4,), 3.0).double(), rtol=0.02, atol=0)
    normal = torch.distributions.Normal(0.0, 1.0)
    q = normal.icdf((1 + torch.tensor([0.5, 0.9, 0.99, 0.999])) / 2).double()
    torch.testing.assert_close(tails(g), (q[1:] / q[0]).expand(4, 3), rtol=0.02, atol=0)


@pytest.mark.parametrize("entries", [64, 101])
def test_quantiles_are_torchs(entries):
    g = noise.normal(torch.arange(5), (entries,), torch.float64)
    expected = g.abs().quantile(torch.tensor([0.9, 0.99, 0.999], dtype=torch.float64), dim=1) / g.abs().quantile(
        0.5, dim=1
    )
    torch.testing.assert_close(tails(g), expected.T)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_tails_do_not_change_with_the_scale_of_the_gradient(scale):
    g = noise.normal(torch.arange(5), (60,), torch.float64).pow(3)
    torch.testing.assert_close(kurtosis(g * scale), kurtosis(g))
    torch.testing.assert_close(tails(g * scale), tails(g))


class Corner(nn.Module):
    """Of images with a bright first pixel only that pixel matters, of the others everything."""

    def forward(self, x):
        flat = x.flatten(1)
        score = torch.where(flat[:, 0] > 0.5, 3 * flat[:, 0], (flat * torch.arange(1.0, 109.0).to(x)).sum(1) / 1000)
        return torch.stack([score, -score], 1)


def test_images_whose_median_is_zero_have_no_tails_and_are_left_out(images, labels, keys):
    images[:2, 0, 0, 0] = 1.0
    found = dict(GradientTails()(Corner(), in_two(images, labels % 2, keys)))
    assert found["gradient_tail_defined"] == 6 / 8
    ramp = torch.arange(1.0, 109.0).double()
    assert found["gradient_tail_0.9"] == pytest.approx((ramp.quantile(0.9) / ramp.quantile(0.5)).item())


def test_a_mean_and_its_interval():
    values = torch.tensor([1.0, 2.0, 4.0, 5.0, 100.0])
    found = mean(values, "it", values < 50)
    assert found == pytest.approx((3.0, math.sqrt(10 / 3), 4, 0.8))
    half = 1.959964 * math.sqrt(10 / 3) / 2
    assert found.interval() == pytest.approx((3 - half, 3 + half), rel=1e-6)
    with pytest.raises(ValueError, match="it is undefined on every one of 5 images"):
        mean(values, "it", values > 200)


def test_what_is_not_a_number_shows():
    assert math.isnan(mean(torch.tensor([1.0, math.nan]), "it").value)


def _rank(rank, place):
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}/group", rank=rank, world_size=2)
    own = [torch.arange(7.0), torch.arange(7.0, 10.0)][rank]
    torch.save(tuple(mean(own, "it", own > 1)), f"{place}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_with_unequal_shares_have_the_mean_of_all(tmp_path):
    processes.spawn(_rank, (str(tmp_path),), nprocs=2)
    everything = torch.arange(10.0)
    alone = tuple(mean(everything, "it", everything > 1))
    assert torch.load(tmp_path / "0.pt") == torch.load(tmp_path / "1.pt") == pytest.approx(alone)

"""Each doubt fires on a network spoilt for it, and none on networks as people train them."""

import copy
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.trainers.attacks import nets
from tests.trainers.evaluation.doubts.doubtful import EPS, KINDS, N, data, digits, doubts, names, tallied, trained
from tests.trainers.evaluation.doubts.masked import (
    Adapted,
    Around,
    BatchStatistics,
    Constant,
    Purified,
    SeedsItself,
    StuckNorm,
    WithNorm,
    levels,
    reversed_gradient,
    straight_through,
)
from trainers.attacks.pgd import PGD
from trainers.evaluation.doubts import CHECKS, Tally, examine
from trainers.evaluation.doubts.case import Connected
from trainers.evaluation.doubts.doubt import many, shown
from trainers.threat import L1, L2, Linf
from trainers.types import Batch

BLIND = {"zero gradients", "robust at unbounded eps"}
"""What no network without a gradient can hide."""


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained("adversarial")


def found(model: nn.Module, tally: Tally | None = None, **more):
    """Doubts without an evaluation beforehand, as if every example classified rightly had withstood it."""
    robust, counted = tallied(model, digits(), [])
    return examine(model, digits(), robust, Linf(EPS), tally or counted, 10, effort=(), **more)


@pytest.mark.parametrize(
    ("kind", "threat"),
    [*((kind, Linf(EPS)) for kind in KINDS), ("standard", L2(0.5)), ("adversarial", L1(2.0))],
    ids=str,
)
def test_a_normal_model_raises_no_doubt(kind, threat):
    model = trained(kind)
    _, tally = tallied(model, digits(), [])
    assert tally.clean_right > 0.7 * N
    assert doubts(model, threat=threat, stated_clean_accuracy=tally.clean_right / N + 0.02) == []


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_normal_model_of_few_classes_raises_no_doubt(classes):
    model, x, y = nets.trained(classes)
    batch = Batch(x, y, 1000 + 7 * torch.arange(len(y)))
    assert doubts(model, batch, Linf(0.1), classes) == []


def test_confidence_lower_precision_and_log_softmax_are_normal(net):
    assert found(Around(trained("standard"), after=lambda z: 5 * z)) == []
    assert found(Around(net, after=lambda z: z.log_softmax(1))) == []
    half = copy.deepcopy(net).bfloat16()
    assert found(Around(half, lambda x: x.bfloat16(), lambda z: z.float())) == []
    assert found(torch.compile(net, backend="aot_eager")) == []


@pytest.mark.parametrize("steps", [1, 7, 255])
def test_rounded_inputs(net, steps):
    seen = names(found(Around(net, lambda x: levels(x, steps))))
    assert seen == {"quantised input"} | BLIND


@pytest.mark.parametrize("steps", [7, 255])
def test_rounded_inputs_behind_a_straight_through_gradient(net, steps):
    """The gradient that is made up leads somewhere, and the rounding is seen all the same."""
    assert names(found(Around(net, lambda x: straight_through(x, steps)))) == {"quantised input"}


def test_constant_and_saturated_outputs_have_no_gradient(net):
    assert names(found(Constant())) == BLIND
    saturated = found(Around(net, after=lambda z: 10 * (20 * z).softmax(1) - 5))
    assert "zero gradients" in names(saturated)
    assert saturated[0].evidence["vanishing"] > saturated[0].evidence["exactly_zero"]


def test_a_cut_graph_is_a_zero_gradient_not_an_error(net):
    cut = Connected(Around(net, lambda x: x.detach()))
    assert names(doubts(cut)) >= BLIND
    assert names(found(cut.model)) == BLIND


def test_gradients_that_are_not_finite(net):
    rooted = Around(net, lambda x: (x - 0.5).abs().sqrt() ** 2 * (x - 0.5).sign() + 0.5)
    grey = digits()._replace(x=digits().x.clamp(0.5, 1))
    robust, tally = tallied(rooted, grey, [])
    (doubt,) = (d for d in examine(rooted, grey, robust, Linf(EPS), tally, 10) if d.name == "zero gradients")
    assert doubt.evidence["not_finite"] == tally.clean_right > 0


def test_a_backward_that_is_not_that_of_the_forward(net):
    seen = names(found(Around(net, reversed_gradient)))
    assert seen == {"misleading gradients", "robust at unbounded eps"}


@pytest.mark.parametrize("kind", ["adversarial", "standard"])
def test_logits_multiplied_by_a_large_number(kind):
    hot = Around(trained(kind), after=lambda z: 1e4 * z)
    (doubt,) = found(hot)
    assert doubt.name == "saturated cross-entropy"
    assert doubt.evidence["saturated"] > 0.8 * doubt.evidence["images"]


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (lambda z: z.softmax(1), "probabilities (each row sums to 1)"),
        (lambda z: (3 * z).sigmoid(), "scores between 0 and 1"),
        (lambda z: (3 * z).softmax(1).clamp_min(1e-3).log(), "log-probabilities with a floor"),
    ],
)
def test_outputs_that_are_not_logits(net, after, kind):
    (doubt,) = (d for d in found(Around(net, after=after)) if d.name == "outputs are not logits")
    assert doubt.evidence["kind"] == kind
    assert "zero gradients" not in names(found(Around(net, after=lambda z: z.softmax(1))))


def test_logits_that_are_not_finite(net):
    def by_brightness(x):
        return x * (x.sum((1, 2, 3), keepdim=True) / x.sum((1, 2, 3), keepdim=True))

    (black,) = found(Around(net, by_brightness))
    assert (black.name, black.evidence["black"], black.evidence["clean"]) == ("non-finite logits", 1, 0)
    (all_of_them,) = found(Around(net, after=lambda z: z * torch.nan))
    assert (all_of_them.name, all_of_them.evidence["clean"]) == ("non-finite logits", N)
    (counted,) = found(net, Tally(N, 50, {"apgd-ce": 0}, non_finite=2))
    assert (counted.name, counted.evidence["in_the_evaluation"]) == ("non-finite logits", 2)


def test_dropout_at_inference(net):
    (doubt,) = (d for d in found(Around(net, lambda x: F.dropout(x, 0.1))) if d.name == "randomness")
    assert doubt.evidence["images_that_differ"] == N
    assert "train/eval mode leak" not in names(found(Around(net, lambda x: F.dropout(x, 0.1))))
    assert "randomness" in names(found(Around(net, lambda x: x + 1e-3 * torch.randn_like(x))))


def test_noise_that_seeds_itself_depends_on_the_place_in_the_batch(net):
    seen = names(found(SeedsItself(net)))
    assert "train/eval mode leak" in seen
    assert "randomness" not in seen


def test_batchnorm_that_stays_in_train_mode(net):
    norm = StuckNorm(1, momentum=None)
    for batch in data().held_out("test"):
        norm(batch.x)
    model = WithNorm(net, norm, float(data().std[0]), float(data().mean[0])).eval()
    before = copy.deepcopy(model.state_dict())
    (doubt,) = found(model)
    assert (doubt.name, doubt.evidence["first"]) == ("train/eval mode leak", "norm")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert norm.training


def test_statistics_of_the_batch_in_eval_mode(net):
    (doubt,) = (d for d in found(BatchStatistics(net)) if d.name == "train/eval mode leak")
    assert doubt.evidence["difference_by_companions"] > 0.01
    assert doubt.evidence["buffers_changed"] == 2


@pytest.mark.parametrize("how", ["grad", "backward", "func"])
def test_gradients_taken_at_inference(net, how):
    profiler = sys.getprofile()
    (doubt,) = found(Purified(net, how))
    assert doubt.name == "optimisation at inference"
    assert sum(doubt.evidence.values()) == 1
    assert sys.getprofile() is profiler
    assert found(net) == []  # nothing is left behind that would accuse the next model


def test_weights_that_change_at_inference(net):
    model = Adapted(net)
    (doubt,) = (d for d in found(model) if d.name == "optimisation at inference")
    assert doubt.evidence == {"weights_changed": 1}
    assert torch.equal(model.bias, torch.zeros(10))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda model: model.network, "normalised with"),
        (lambda model: Around(model, model.normalize), "undone"),
        (lambda model: Around(model, lambda x: (x - 0.5) / 0.5), "0.5 and 0.5 as mean and std undone"),
        (lambda model: Around(model, lambda x: x / 255), "multiplied by 255"),
    ],
)
def test_normalisation_missing_or_twice(spoil, expected):
    (doubt,) = (d for d in found(spoil(trained("standard"))) if d.name == "wrong normalisation")
    assert expected in doubt.evidence["input"]
    assert doubt.evidence["right_with_it"] > 0.8 * N


def test_a_clean_accuracy_below_the_models_own(net):
    tally = Tally(1000, 780, {"apgd-ce": 400})
    assert found(net, tally, stated_clean_accuracy=0.80) == []  # within chance of 0.78 of 1,000
    assert found(net, tally, stated_clean_accuracy=0.70) == []
    (doubt,) = found(net, tally, stated_clean_accuracy=0.95)
    assert (doubt.name, doubt.evidence["stated_clean_accuracy"]) == ("wrong normalisation", 0.95)


def test_a_model_that_refuses_other_inputs_is_not_accused(net):
    def strict(x):
        assert x.min() >= 0
        assert x.max() <= 1
        return x

    assert found(Around(net, strict)) == []


def test_square_stronger_than_gradients(net):
    for fooled, n, doubted in (
        ({"apgd-ce": 30, "square": 3}, 64, True),
        ({"apgd-ce": 30, "square": 2}, 64, False),
        ({"square": 20, "apgd-ce": 30}, 64, False),  # nothing with gradients came before it
        ({"apgd-ce": 300, "square": 4}, 1000, False),
        ({"apgd-ce": 300, "square": 5}, 1000, True),
        ({"apgd-ce": 3000, "square": 20, "malt": 90}, 10000, False),
    ):
        seen = names(found(net, Tally(n, int(0.9 * n), fooled)))
        assert seen == ({"black-box stronger than white-box"} if doubted else set())


def test_points_outside_the_threat(net):
    (doubt,) = found(net, Tally(N, 50, {"apgd-ce": 20}, outside=1))
    assert (doubt.name, doubt.evidence["outside"]) == ("points outside the threat", 1)


def test_an_evaluation_that_stopped_too_early():
    """One step leaves standing what more steps and other starts fool."""
    model, weak = trained("standard"), PGD(Linf(0.05), steps=1)
    robust, tally = tallied(model, digits(), [weak])
    (doubt,) = examine(model, digits(), robust, Linf(0.05), tally, 10)
    assert doubt.name == "more effort still gains"
    assert doubt.evidence["images"] == int(robust.sum())
    assert doubt.evidence["fooled_by_more"] >= 3
    enough = examine(model, digits(), robust, Linf(0.05), tally, 10, effort=[weak])
    assert names(enough) <= {"more effort still gains"}
    assert not enough or enough[0].evidence["fooled_by_more"] < doubt.evidence["fooled_by_more"]


def test_every_name_is_looked_for_once_and_explained(net):
    hot = Around(net, lambda x: F.dropout(levels(x, 3), 0.2), lambda z: z.softmax(1))
    seen = doubts(hot)
    assert len(set(CHECKS)) == len(CHECKS) == 14
    assert [d.name for d in seen] == [name for name in CHECKS if name in names(seen)]
    for doubt in seen:
        assert 80 < len(doubt.explanation) < 500
        assert doubt.evidence
        assert all(isinstance(value, (int, float, str)) for value in doubt.evidence.values())


def test_same_seed_same_evidence_and_the_model_is_left_as_it_was(net):
    model = copy.deepcopy(net).train()
    model.network.blocks[0].bn1.eval()
    model.network.fc.bias.requires_grad_(False)
    model.network.fc.weight.grad = torch.ones_like(model.network.fc.weight)
    spoilt = Around(Adapted(model), lambda x: F.dropout(x, 0.2))
    modes = [module.training for module in spoilt.modules()]
    weights = copy.deepcopy(spoilt.state_dict())
    state = torch.get_rng_state()
    first, again = found(spoilt), found(spoilt)
    assert first == again
    assert "randomness" in names(first)
    assert found(spoilt, seed=1) != first
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in spoilt.modules()] == modes
    assert all(torch.equal(value, spoilt.state_dict()[name]) for name, value in weights.items())
    live = {name for name, p in spoilt.named_parameters() if not p.requires_grad}
    assert live == {"model.model.network.fc.bias"}
    assert {name for name, p in spoilt.named_parameters() if p.grad is not None} == {"model.model.network.fc.weight"}
    assert torch.equal(model.network.fc.weight.grad, torch.ones_like(model.network.fc.weight))


def test_one_example_one_right_and_none_right(net):
    batch = digits()
    robust, _ = tallied(net, batch, [])
    row = int(robust.nonzero()[0])
    one = Batch(*(t[row : row + 1] for t in batch))
    assert examine(net, one, robust[row : row + 1], Linf(EPS), Tally(1, 1, {}), 10) == []
    wrong = batch._replace(y=(batch.y + torch.where(robust, 1, 0)) % 10)
    with torch.no_grad():
        wrong = wrong._replace(y=(net(batch.x).argmax(1) + 1) % 10)
    assert examine(net, wrong, torch.zeros(N, dtype=torch.bool), Linf(EPS), Tally(N, 0, {}), 10) == []


def test_callers_under_inference_mode(net):
    with torch.inference_mode():
        batch = Batch(*(t.clone() for t in digits()))
        assert examine(net, batch, torch.zeros(N, dtype=torch.bool), Linf(EPS), Tally(N, 50, {}), 10) == []


def test_how_many_examples_make_a_doubt():
    assert shown(3, 510, 0.002)
    assert not shown(3, 511, 0.002)
    assert not shown(2, 2, 0.002)
    assert many(1, 3, 0.05)
    assert not many(1, 4, 0.05)
    assert many(2, 40, 0.05)
    assert not many(2, 41, 0.05)


def test_what_does_not_fit_is_refused(net):
    batch, tally = digits(), Tally(N, 50, {})
    robust = torch.zeros(N, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"write 83\.4 % as 0\.834"):
        examine(net, batch, robust, Linf(EPS), tally, 10, stated_clean_accuracy=83.4)
    with pytest.raises(ValueError, match="one verdict an example"):
        examine(net, batch, robust[1:], Linf(EPS), tally, 10)
    with pytest.raises(ValueError, match="no examples"):
        examine(net, Batch(*(t[:0] for t in batch)), robust[:0], Linf(EPS), tally, 10)
    for wrong in ({"clean_right": 65}, {"fooled": {"fab-t": 51}}, {"outside": -1}):
        with pytest.raises(ValueError, match="no tally"):
            replace(tally, **wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    net = copy.deepcopy(trained("adversarial")).cuda()
    batch = Batch(*(t.cuda() for t in digits()))
    assert doubts(net, batch) == []
    rounded = Around(net, lambda x: F.dropout(levels(x, 7), 0.1))
    state = torch.cuda.get_rng_state()
    robust, tally = tallied(net, batch, [])
    first = examine(rounded, batch, robust.cpu(), Linf(EPS), tally, 10)
    assert {"zero gradients", "randomness"} <= names(first)
    assert examine(rounded, batch, robust.cpu(), Linf(EPS), tally, 10) == first
    assert torch.equal(torch.cuda.get_rng_state(), state)

"""Losses against their formulas, written out with probabilities."""

import pytest
import torch
import torch.nn.functional as F

from trainers import losses

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-30.0, 20.0, 1.0]], dtype=torch.float64)
Y = torch.tensor([0, 2, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_its_formula(smoothing, soft):
    q = torch.tensor([[0.7, 0.3, 0.0], [0.2, 0.2, 0.6], [0.0, 0.5, 0.5]], dtype=torch.float64)
    q = q if soft else F.one_hot(Y, 3).double()
    smoothed = (1 - smoothing) * q + smoothing / 3
    expected = -(smoothed * LOGITS.softmax(1).log()).sum(1)
    torch.testing.assert_close(losses.cross_entropy(LOGITS, q if soft else Y, smoothing), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_float32_losses(dtype):
    logits = LOGITS.to(dtype)
    wide = logits.float()
    assert torch.equal(losses.cross_entropy(logits, Y), losses.cross_entropy(wide, Y))
    assert losses.cross_entropy(logits, Y).dtype == torch.float32
    assert torch.equal(losses.log_softmax(logits), wide.log_softmax(1))


def test_float64_stays_float64():
    assert losses.cross_entropy(LOGITS, Y).dtype == torch.float64
    assert losses.log_softmax(LOGITS).dtype == torch.float64


def test_a_confident_example_keeps_a_gradient_in_float32():
    """``1 - p`` rounds to 0 from a margin of 17 on, but ``log p`` and the other classes' gradients do not."""
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    losses.cross_entropy(logits, torch.tensor([0])).sum().backward()
    torch.testing.assert_close(logits.grad[0, 1].item(), torch.tensor(-60.0).exp().item(), rtol=1e-4, atol=0)


def test_kl_divergence_is_its_formula_and_zero_only_at_equality():
    p, q = LOGITS.softmax(1), (LOGITS / 3 + torch.tensor([0.1, 0.5, 0.0])).softmax(1)
    expected = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(losses.kl_divergence(q.log(), p.log()), expected)
    assert (expected > 0).all()
    assert torch.equal(losses.kl_divergence(p.log(), p.log()), torch.zeros(3, dtype=torch.float64))


def test_accuracy_reads_the_largest_class_of_soft_targets():
    soft = torch.tensor([[0.6, 0.4, 0.0], [0.4, 0.1, 0.5], [0.0, 0.3, 0.7]])
    logits = torch.tensor([[9.0, 1.0, 2.0], [1.0, 3.0, 2.0], [0.0, 0.0, 1.0]])
    assert losses.hard(soft).tolist() == [0, 2, 2]
    assert losses.hard(Y) is Y
    torch.testing.assert_close(losses.accuracy(logits, soft), torch.tensor(2 / 3))
    torch.testing.assert_close(losses.accuracy(logits, losses.hard(soft)), torch.tensor(2 / 3))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"objective.smoothing="):
        losses.check_smoothing(smoothing)


def test_difference_of_logits_ratios_are_their_formulas():
    logits = torch.tensor([[4.0, 1.0, 3.0, -1.0, 0.0], [0.5, 2.0, 1.0, 1.5, -3.0]], dtype=torch.float64)
    y = torch.tensor([0, 2])
    torch.testing.assert_close(losses.margin(logits, y), torch.tensor([1.0, -1.0]).double())
    torch.testing.assert_close(losses.dlr(logits, y), torch.tensor([-1 / 3, 1 / 1.0]).double())
    target = torch.tensor([4, 0])
    expected = torch.tensor([-4 / (4 - 0.5), -(1.0 - 0.5) / (2 - 0.75)]).double()
    torch.testing.assert_close(losses.targeted_dlr(logits, y, target), expected)
    for loss in (losses.dlr(7 * logits + 2, y), losses.targeted_dlr(7 * logits + 2, y, target)):
        assert loss.isfinite().all()
    torch.testing.assert_close(losses.dlr(7 * logits + 2, y), losses.dlr(logits, y))
    torch.testing.assert_close(losses.targeted_dlr(7 * logits + 2, y, target), expected)

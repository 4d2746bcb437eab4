"""Accuracies: exact counts, every example's verdict, and the same number however the examples are shared out."""

import pytest
import torch
from torch import nn

from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.evaluation.accuracy import CleanAccuracy, RobustAccuracy
from trainers.threat import Linf
from trainers.types import Batch


@pytest.fixture
def model(small_net) -> nn.Module:
    return small_net()


@pytest.fixture
def batch(model) -> Batch:
    """40 examples that the model has right, but for ids 3 and 11."""
    x = torch.rand(40, 3, 6, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    y[[3, 11]] = (y[[3, 11]] + 1) % 5
    return Batch(x, y, torch.arange(40))


def split(batch: Batch, *sizes: int) -> list[Batch]:
    return [Batch(*parts) for parts in zip(*(t.split(sizes) for t in batch), strict=True)]


def test_clean_accuracy_counts(model, batch):
    assert list(CleanAccuracy()(model, [batch])) == [("clean_accuracy", 38 / 40)]
    keys, correct = CleanAccuracy().verdicts(model, [batch])
    assert torch.equal(keys, batch.keys)
    assert keys[~correct].tolist() == [3, 11]


@pytest.mark.parametrize("probe", [CleanAccuracy(), RobustAccuracy(PGD(Linf(0.03), steps=5))], ids=repr)
def test_batches_of_any_size_and_order_give_the_same_verdicts(model, batch, probe):
    _, correct = probe.verdicts(model, [batch])
    order = torch.randperm(40)
    shuffled = Batch(*(t[order] for t in batch))
    keys_again, again = probe.verdicts(model, split(shuffled, 1, 22, 17))
    assert torch.equal(again[keys_again.argsort()], correct)
    assert 0 < correct.sum() < 40
    assert dict(probe(model, split(batch, 39, 1))) == dict(probe(model, [batch]))


def test_robust_is_right_before_and_after_the_attack(model, batch):
    attack = PGD(Linf(0.03), steps=5)
    _, robust = RobustAccuracy(attack).verdicts(model, [batch])
    before = model(batch.x).argmax(1) == batch.y
    after = model(attack(model, *batch)).argmax(1) == batch.y
    assert torch.equal(robust, before & after)
    assert list(RobustAccuracy(attack)(model, [batch])) == [("robust_accuracy", robust.double().mean().item())]


def test_what_is_wrong_already_is_not_robust_and_not_attacked(model, batch):
    seen = []

    def helpful(model, x, y, keys=None):
        """An "attack" that would put every example right."""
        seen.extend(keys.tolist())
        return x

    _, robust = RobustAccuracy(helpful).verdicts(model, [batch])
    assert sorted(seen) == [k for k in range(40) if k not in (3, 11)]
    assert (~robust).nonzero().flatten().tolist() == [3, 11]


def test_a_batch_that_is_all_wrong_is_not_attacked(model, batch):
    def never(*_):
        raise AssertionError("attacked")

    wrong = batch._replace(y=(model(batch.x).argmax(1) + 1) % 5)
    assert dict(RobustAccuracy(never)(model, [wrong])) == {"robust_accuracy": 0}


def test_a_nan_is_a_wrong_answer():
    """The largest entry of all-NaN logits is the first, which would make class 0 robust."""

    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * float("nan")

    batch = Batch(torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    assert dict(CleanAccuracy()(Broken(), [batch])) == {"clean_accuracy": 0}


def test_the_network_is_judged_in_eval_mode_and_given_back_as_it_was(small_net, batch):
    model = small_net(dropout=0.9).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probes = [CleanAccuracy(), RobustAccuracy(FGSM(Linf(0.03)))]
    measured = [dict(probe(model, [batch])) for probe in probes]
    assert all(m.training for m in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert [dict(probe(model.eval(), [batch])) for probe in probes] == measured


@pytest.mark.parametrize("probe", [CleanAccuracy(), RobustAccuracy(FGSM(Linf(0.1)))], ids=repr)
def test_no_examples_have_no_accuracy(model, probe):
    with pytest.raises(ValueError, match="no examples"):
        list(probe(model, []))

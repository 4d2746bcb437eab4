"""What a report shows of an image: true gradients, true adversarial examples, and images worth a look."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.trainers.attacks.nets import trained
from trainers.attacks.apgd import APGD
from trainers.attacks.pgd import PGD
from trainers.attacks.square import Square
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.pictures import look, telling
from trainers.threat import L2, Linf
from trainers.types import Batch

N = 20
ATTACKS = [
    APGD(Linf(0.04), steps=10),
    APGD(L2(0.8), steps=10),
    PGD(Linf(0.04), steps=5),
    Square(Linf(0.25), queries=20),
]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=repr)


@pytest.fixture
def net() -> tuple[nn.Module, Batch]:
    """A network that could go on training, and images of which three are wrong as they are."""
    model, x, y = trained(10)
    model, y = copy.deepcopy(model), y[:N].clone()
    y[[2, 3, 11]] = (y[[2, 3, 11]] + 1) % 10
    return model.train(), Batch(x[:N], y, 7 * torch.arange(N).flip(0))


@each_attack
def test_the_gradient_is_that_of_the_cross_entropy(net, attack):
    model, batch = net
    seen = look(attack, model, batch, 10, Effort(batch_size=6))
    x = batch.x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(cross_entropy(model(x), batch.y, reduction="sum"), x)
    torch.testing.assert_close(seen.gradient, expected)
    assert seen.gradient.abs().sum() > 0
    assert seen.ids.equal(batch.keys)
    assert seen.prediction.equal(model(batch.x).argmax(1))


@each_attack
def test_what_is_shown_as_adversarial_is_inside_and_misclassified(net, attack):
    model, batch = net
    seen, right = look(attack, model, batch, 10, Effort(batch_size=6)), torch.ones(N, dtype=torch.bool)
    right[[2, 3, 11]] = False
    assert 0 < int(seen.fooled.sum()) < right.sum()
    assert not (seen.fooled & ~right).any()
    distance = attack.threat.distance(seen.adversarial, batch.x)
    assert (distance <= attack.threat.eps + 1e-6).all()
    assert ((seen.adversarial >= 0) & (seen.adversarial <= 1)).all()
    torch.testing.assert_close(seen.distance, distance.double(), rtol=0, atol=1e-6)
    assert (distance[seen.fooled] > 0).all()
    predicted = model(seen.adversarial).argmax(1)
    assert seen.adversarial_prediction.equal(predicted)
    assert (predicted != batch.y)[seen.fooled].all()
    assert seen.adversarial[~seen.fooled].equal(batch.x[~seen.fooled])


def test_the_network_is_left_as_it_was(net):
    model, batch = net
    model.add_module("drop", nn.Dropout(0.5))
    seen = look(ATTACKS[0], model, batch, 10, Effort())
    assert all(module.training for module in model.modules() if module is not model.drop)
    assert model.drop.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert look(ATTACKS[0], model, batch, 10, Effort()).adversarial.equal(seen.adversarial)


def test_images_that_are_all_wrong_are_shown_as_they_are(net):
    model, batch = net
    wrong = Batch(batch.x, (model(batch.x).argmax(1) + 1) % 10, batch.keys)
    seen = look(ATTACKS[0], model, wrong, 10, Effort())
    assert not seen.fooled.any()
    assert seen.adversarial.equal(batch.x)
    assert seen.adversarial_prediction.equal(seen.prediction)
    assert (seen.distance == 0).all()


class _Cut(nn.Module):
    """Sees images that autograd does not follow."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x.detach() * 31).round() / 31)


def test_where_the_model_cuts_the_graph_the_gradient_is_0(net):
    model, batch = net
    seen = look(ATTACKS[0], _Cut(model), batch, 10, Effort())
    assert (seen.gradient == 0).all()
    assert seen.prediction.equal(_Cut(model)(batch.x).argmax(1))


@pytest.mark.parametrize("seed", range(30))
def test_the_images_to_show_are_one_of_each_class_first_and_fooled_ones_before_others(seed):
    draw = torch.Generator().manual_seed(seed)
    n = int(torch.randint(1, 25, (), generator=draw))
    labels = torch.randint(int(torch.randint(1, 8, (), generator=draw)), (n,), generator=draw)
    right, fooled = (torch.rand(n, generator=draw) < p for p in (0.8, 0.3))
    worth = torch.where(right & fooled, 2, right.long())
    for count in (0, 1, 3, 6, 40):
        rows = telling(right, fooled, labels, count)
        shown, hidden = rows.tolist(), sorted(set(range(n)) - set(rows.tolist()))
        assert shown == sorted(set(shown))
        assert len(shown) == min(count, n)
        classes = set(labels[rows].tolist())
        assert len(classes) == min(count, len(labels.unique()))
        best = {label: int(worth[labels == label].max()) for label in labels.unique().tolist()}
        for label in classes:
            assert int(worth[rows][labels[rows] == label].max()) == best[label]
        assert all(best[label] >= best[other] for label in classes for other in set(best) - classes)
        again = [
            row for row in shown if (labels[rows] == labels[row]).sum() > 1 and worth[row] < best[int(labels[row])]
        ]
        assert all(worth[more] >= worth[other] for more, other in itertools.product(again, hidden))


def test_the_images_to_show_by_hand():
    right = torch.tensor([True, True, True, False, True, True])
    fooled = torch.tensor([False, True, True, True, False, True])
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    for count, rows in (
        (1, [1]),
        (2, [1, 5]),
        (3, [1, 3, 5]),
        (4, [1, 2, 3, 5]),
        (5, [0, 1, 2, 3, 5]),
        (9, list(range(6))),
    ):
        assert telling(right, fooled, labels, count).tolist() == rows

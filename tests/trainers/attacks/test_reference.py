"""Against the authors' code: the same examples fooled, one by one."""

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.attacks.nets import trained
from trainers.attacks import search
from trainers.attacks.cascade import autoattack
from trainers.attacks.draws import Sequential
from trainers.attacks.square import Square
from trainers.threat import L2, Linf, Threat

pyautoattack = pytest.importorskip("pyautoattack", reason="the authors' code is not installed")

N, SEED, QUERIES = 24, 3, 150
THREATS: list[Threat] = [Linf(0.05), L2(0.7)]
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
CASES = (
    [(10, name, threat, N) for name in STANDARD for threat in THREATS]
    + [(10, name, threat, 10) for name in ("apgd-t", "square") for threat in THREATS]
    + [(4, name, threat, N) for name in (*STANDARD, "apgd-dlr", "fab") for threat in THREATS]
    + [(4, "fab", THREATS[0], 10)]
    + [(3, name, threat, N) for name in ("apgd-ce", "apgd-dlr", "fab-t", "square") for threat in THREATS]
)


def oracle(net: nn.Module, threat: Threat, name: str, classes: int, restarts: int) -> object:
    attack = pyautoattack.AutoAttack(net, norm=threat.norm, eps=threat.eps, attacks=[name], version="custom", seed=SEED)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
    attack.apgd.n_restarts = attack.fab.n_restarts = restarts
    attack.square.n_queries = QUERIES
    return attack


def theirs(net: nn.Module, x: Tensor, y: Tensor, batch_size: int, *args: object) -> Tensor:
    x_adv, _ = oracle(net, *args).run_standard_evaluation(x, y, batch_size=batch_size)
    with torch.no_grad():
        return net(x_adv).argmax(1) == y


def ours(net: nn.Module, x: Tensor, y: Tensor, batch_size: int, attack: object) -> Tensor:
    with torch.no_grad():
        robust = net(x).argmax(1) == y
        for rows in robust.nonzero()[:, 0].split(batch_size):
            x_adv = search.attack(attack, net, x[rows], y[rows], draws=Sequential(SEED))
            robust[rows] = net(x_adv).argmax(1) == y[rows]
    return robust


def member(name: str, threat: Threat, classes: int) -> object:
    if name == "square":
        return Square(threat, queries=QUERIES)
    for version in ("standard", "plus"):
        for attack in autoattack(threat, version, classes).members:
            if attack.name == name:
                return attack
    raise AssertionError(name)


@pytest.mark.parametrize(("classes", "name", "threat", "batch_size"), CASES, ids=str)
def test_the_same_examples_are_robust(classes, name, threat, batch_size):
    attack = member(name, threat, classes)
    net, x, y = trained(classes)
    x, y = x[:N], y[:N]
    expected = theirs(net, x, y, batch_size, threat, name, classes, getattr(attack, "restarts", 1))
    assert ours(net, x, y, batch_size, attack).tolist() == expected.tolist()


@pytest.mark.parametrize("threat", THREATS, ids=repr)
@pytest.mark.parametrize("classes", [10, 4])
def test_some_examples_fall_and_some_do_not(classes, threat):
    """Else the comparison would be one of constants."""
    net, x, y = trained(classes)
    assert 0 < ours(net, x[:N], y[:N], N, member("apgd-ce", threat, classes)).sum() < N


@pytest.mark.parametrize("name", ["apgd-ce", "fab-t", "square"])
def test_a_batch_of_one_and_one_that_is_wrong_already(name):
    net, x, y = trained(4)
    threat = THREATS[0]
    attack = member(name, threat, 4)
    for labels in (y[:1], (y[:1] + 1) % 4):
        expected = theirs(net, x[:1], labels, 8, threat, name, 4, 1)
        assert ours(net, x[:1], labels, 8, attack).tolist() == expected.tolist()
    wrong = (y[:5] + 1) % 4
    assert not ours(net, x[:5], wrong, 8, attack).any()
    assert torch.equal(search.attack(attack, net, x[:5], wrong, draws=Sequential(SEED)), x[:5])

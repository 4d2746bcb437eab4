"""Against the authors' code: the same examples fooled, one by one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.attacks.nets import trained
from trainers.attacks import search
from trainers.attacks.apgd import APGD
from trainers.attacks.cascade import autoattack
from trainers.attacks.draws import Sequential
from trainers.attacks.square import Square
from trainers.threat import L1, L2, Linf, Threat

pyautoattack = pytest.importorskip("pyautoattack", reason="the authors' code is not installed")

N, SEED, QUERIES = 24, 3, 150
THREATS: list[Threat] = [Linf(0.05), L2(0.7), L1(6.0)]
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
CASES = (
    [(10, name, threat, N) for name in STANDARD for threat in THREATS]
    + [(10, name, threat, 10) for name in ("apgd-t", "square") for threat in THREATS[:2]]
    + [(4, name, threat, N) for name in (*STANDARD, "apgd-dlr", "fab") for threat in THREATS[:2]]
    + [(4, "fab", THREATS[0], 10)]
    + [(3, name, threat, N) for name in ("apgd-ce", "apgd-dlr", "fab-t", "square") for threat in THREATS[:2]]
    + [(10, "square", THREATS[2], 10), (4, "fab", THREATS[2], 12)]
    + [(4, name, THREATS[2], 12) for name in ("apgd-t", "apgd-dlr", "square")]
)


def oracle(
    net: nn.Module, threat: Threat, name: str, classes: int, restarts: int = 1, larger_eps: bool = False
) -> object:
    attack = pyautoattack.AutoAttack(net, norm=threat.norm, eps=threat.eps, attacks=[name], version="custom", seed=SEED)
    attack.apgd_targeted.n_target_classes = min(5 if threat.norm == "L1" else 9, classes - 1)
    attack.fab.n_target_classes = min(9, classes - 1)
    attack.apgd.n_restarts = attack.fab.n_restarts = restarts
    attack.apgd.use_largereps = attack.apgd_targeted.use_largereps = larger_eps
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


def standard(net: nn.Module, x: Tensor, y: Tensor, batch_size: int, threat: Threat, queries: int) -> Tensor:
    """The whole cascade, each attack on those that withstood the ones before."""
    with torch.no_grad():
        robust = net(x).argmax(1) == y
    for attack in autoattack(threat).members:
        left = robust.nonzero()[:, 0]
        some = replace(attack, queries=queries) if isinstance(attack, Square) else attack
        robust[left] = ours(net, x[left], y[left], batch_size, some)
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
    settings = getattr(attack, "restarts", 1), getattr(attack, "larger_eps", False)
    expected = theirs(net, x, y, batch_size, threat, name, classes, *settings)
    assert ours(net, x, y, batch_size, attack).tolist() == expected.tolist()


def test_the_whole_standard_under_l1():
    threat, n, (net, x, y) = L1(6.0), 12, trained(10)
    attack = pyautoattack.AutoAttack(net, norm="L1", eps=threat.eps, version="standard", seed=SEED)
    attack.square.n_queries = QUERIES
    x_adv, _ = attack.run_standard_evaluation(x[:n], y[:n], batch_size=7)
    with torch.no_grad():
        expected = net(x_adv).argmax(1) == y[:n]
    assert 0 < expected.sum() < n
    assert standard(net, x[:n], y[:n], 7, threat, QUERIES).tolist() == expected.tolist()


def test_one_ball_alone_and_gradients_that_are_means_under_l1():
    """Outside ``standard`` the authors' L1 attack does not start in larger balls."""
    threat, (net, x, y) = L1(6.0), trained(10)
    for restarts, eot in ((2, 1), (1, 3)):
        attack = oracle(net, threat, "apgd-ce", 10, restarts)
        attack.apgd.eot_iter = eot
        x_adv, _ = attack.run_standard_evaluation(x[:N], y[:N], batch_size=N)
        with torch.no_grad():
            expected = net(x_adv).argmax(1) == y[:N]
        assert ours(net, x[:N], y[:N], N, APGD(threat, restarts=restarts, eot=eot)).tolist() == expected.tolist()


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
        expected = theirs(net, x[:1], labels, 8, threat, name, 4)
        assert ours(net, x[:1], labels, 8, attack).tolist() == expected.tolist()
    wrong = (y[:5] + 1) % 4
    assert not ours(net, x[:5], wrong, 8, attack).any()
    assert torch.equal(search.attack(attack, net, x[:5], wrong, draws=Sequential(SEED)), x[:5])

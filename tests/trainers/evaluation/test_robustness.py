"""Whole cascades: the same verdicts however they are run, and what does not fit refused."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.attacks.nets import trained
from trainers.attacks.apgd import APGD
from trainers.attacks.cascade import VERSIONS, Cascade, autoattack
from trainers.attacks.fab import FAB
from trainers.attacks.pgd import PGD
from trainers.attacks.square import Square
from trainers.evaluation.attack_run import AttackRun, Effort
from trainers.evaluation.exam import Given
from trainers.evaluation.meter import Meter
from trainers.evaluation.prepared import prepared
from trainers.evaluation.robustness import Verdicts, evaluate
from trainers.modes import frozen, input_gradient
from trainers.threat import L2, Linf, Threat
from trainers.types import Batch

N = 32


def short(threat: Threat) -> Cascade:
    members = [APGD(threat, steps=20), APGD(threat, "targeted_dlr", steps=10, targets=3)]
    return Cascade([*members, FAB(threat, steps=10, targets=2), Square(threat, queries=60), PGD(threat, steps=5)])


def batches(x: Tensor, y: Tensor, size: int, order: Tensor | None = None) -> list[Batch]:
    order = torch.arange(len(y)) if order is None else order
    return [Batch(x[rows], y[rows], 1000 + 7 * rows) for rows in order.split(size)]


def exam(x: Tensor, y: Tensor, order: Tensor | None = None) -> Given:
    order = torch.arange(len(y)) if order is None else order
    return Given(x[order], y[order], 1000 + 7 * order)


def run(model: nn.Module, given: Given, threat: Threat, effort: Effort | None = None) -> Verdicts:
    return evaluate(short(threat), model, given, 10, effort)


@pytest.fixture(scope="module")
def net() -> tuple[nn.Module, Tensor, Tensor]:
    model, x, y = trained(10)
    y = y[:N].clone()
    y[3] = (y[3] + 1) % 10  # one that is wrong as it is
    return model, x[:N], y


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.7)], ids=repr)
def test_batch_size_and_order_change_no_verdict(net, threat):
    model, x, y = net
    model, x = copy.deepcopy(model).double(), x.double()
    whole = run(model, exam(x, y), threat)
    assert {"clean", ""} < set(whole.by)
    assert whole.by[3] == "clean"
    for size, order in ((1, None), (7, torch.arange(N).flip(0)), (64, torch.randperm(N))):
        again = run(model, exam(x, y, order), threat, Effort(batch_size=size))
        place = [again.ids.tolist().index(i) for i in whole.ids.tolist()]
        assert tuple(again.by[i] for i in place) == whole.by
        assert again.attacked[place].tolist() == whole.attacked.tolist()
        torch.testing.assert_close(again.distance[place], whole.distance, rtol=0, atol=1e-9)


def test_in_float32_padding_keeps_the_verdicts(net):
    model, x, y = net
    verdicts = [run(Meter(model), exam(x, y), Linf(0.05), Effort(batch_size=b)).by for b in (1, 7, 64)]
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_another_seed_draws_other_numbers(net):
    model, x, y = net
    attack = APGD(Linf(0.3), steps=3)
    found = []
    for seed in (0, 1):
        ended = list(filter(None, AttackRun(attack, model, batches(x[:8], y[:8], 8), 10, Effort(seed))))
        found.append(torch.cat([e.x_adv for e in ended]))
    assert not torch.equal(*found)


def test_a_cascade_is_never_kinder_than_a_member(net):
    model, x, y = net
    threat = Linf(0.05)
    whole = run(model, exam(x, y), threat)
    for member in short(threat).members:
        alone = evaluate(Cascade([member]), model, exam(x, y), 10)
        assert not (whole.robust & ~alone.robust).any()
    assert whole.robust_accuracy <= whole.clean_accuracy == (N - 1) / N


def test_what_fooled_is_a_point_of_the_threat_seen_misclassified(net):
    model, x, y = net
    for threat in (Linf(0.05), L2(0.7)):
        for ended in filter(None, AttackRun(short(threat).members[0], model, batches(x, y, N), 10, Effort())):
            assert (threat.distance(ended.x_adv, x[(ended.ids - 1000) // 7]) <= threat.eps + 1e-6).all()
            assert (model(ended.x_adv).argmax(1) == ended.prediction)[ended.fooled].all()
            assert (ended.prediction != y[(ended.ids - 1000) // 7])[ended.fooled].all()
            assert not ended.outside.any()


@dataclass(frozen=True)
class Cheat:
    """Says it won with a picture of another class."""

    threat: Threat
    name: str = "cheat"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        return x.roll(1, 0)


def test_a_point_outside_the_threat_is_no_success(net):
    model, x, y = net
    (ended,) = AttackRun(Cheat(Linf(0.05)), model, batches(x, y, N), 10, Effort())
    assert ended.outside.all()
    assert not ended.fooled.any()


class _Spoilt(nn.Module):
    """Logits that are not numbers away from the images themselves."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.model, self.sums = model, x.sum((1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        clean = torch.isin(x.detach().sum((1, 2, 3)), self.sums)
        return torch.where(clean[:, None], self.model(x), torch.nan)


def test_logits_that_are_no_numbers_are_no_defence(net):
    model, x, y = net
    verdicts = run(_Spoilt(model, x), exam(x, y), Linf(0.05))
    assert not verdicts.robust.any()


class _Stepped(nn.Module):
    """Its input rounded to so many levels: the gradient is 0 (``cut``: there is none), nearly all classes stay."""

    def __init__(self, model: nn.Module, cut: bool) -> None:
        super().__init__()
        self.model, self.cut = model, cut

    def forward(self, x: Tensor) -> Tensor:
        return self.model(((x.detach() if self.cut else x) * 31).round() / 31)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("threat", [Linf(0.3), L2(5.0)], ids=repr)
def test_a_model_without_gradients_is_evaluated_to_the_end(net, threat, cut):
    """White-box attacks stand still and the black-box one goes on: what a doubt is for."""
    model, x, y = net
    stepped = Meter(_Stepped(model, cut))
    with frozen(stepped):
        gradient, _, logits = input_gradient(stepped, x, lambda logits: logits.square().sum(1))
    assert (gradient == 0).all()
    right = int((logits.argmax(1) == y).sum())
    verdicts = run(stepped, exam(x, y), threat, Effort(batch_size=9))
    assert verdicts.clean_accuracy == right / N > 0.8
    assert len(verdicts.by) == N
    assert "square" in verdicts.by
    assert {name for name in verdicts.by if name.startswith("fab")} == set()
    unfooled = torch.tensor([name in ("", "clean") for name in verdicts.by])
    assert (verdicts.distance[unfooled] == 0).all()
    assert ((verdicts.distance > 0) == ~unfooled).all()
    assert (verdicts.distance <= threat.eps + 1e-6).all()
    assert (verdicts.attacked != y).equal(~verdicts.robust)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (255 * x, y), "divided by 255"),
        (lambda x, y: (x - 0.5, y), "already normalised"),
        (lambda x, y: (x, y + 5), "the model has 10 classes, 0 to 9"),
        (lambda x, y: (x * torch.nan, y), "not within"),
        (lambda x, y: (x[:0], y[:0]), "no examples"),
    ],
)
def test_what_does_not_fit_is_refused(net, change, message):
    model, x, y = net
    x, y = change(x, y)
    with pytest.raises(ValueError, match=message):
        run(model, exam(x, y), Linf(0.05))


def test_ids_must_tell_examples_apart(net):
    model, x, y = net
    same = Given(x, y, torch.zeros_like(y))
    with pytest.raises(ValueError, match="same id"):
        run(model, same, Linf(0.05))
    with pytest.raises(ValueError, match="one logit a class"):
        evaluate(short(Linf(0.05)), model, exam(x, y), 11)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 100])
def test_autoattack_fits_any_number_of_classes(version, classes):
    cascade = autoattack(Linf(0.1), version, classes)
    names = [member.name for member in cascade.members]
    assert names[0] == "apgd-ce"
    for member in cascade.members:
        assert 1 <= member.parts(classes) <= 9
    if version == "standard":
        middle = {2: [], 3: ["apgd-dlr"]}.get(classes, ["apgd-t"])
        assert names == ["apgd-ce", *middle, "fab-t", "square"]
    if version == "rand":
        assert {member.eot for member in cascade.members} == {20}


def test_what_is_no_cascade_is_refused():
    for members, message in (
        ([], "empty"),
        ([PGD(Linf(0.1)), PGD(Linf(0.1), restarts=2)], "one name"),
        ([PGD(Linf(0.1)), FAB(Linf(0.2))], "different threats"),
    ):
        with pytest.raises(ValueError, match=message):
            Cascade(members)
    with pytest.raises(ValueError, match="version='custom'"):
        autoattack(Linf(0.1), "custom")
    with pytest.raises(ValueError, match="no other to be mistaken for"):
        autoattack(Linf(0.1), classes=1)


def test_a_meter_counts_examples_without_padding(net):
    model, x, _ = net
    sizes: list[int] = []
    meter = Meter(nn.Sequential(model))
    meter.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    torch.testing.assert_close(meter(x[:5]), model(x[:5]))
    assert (sizes, meter.forwards, meter.backwards) == ([6], 5, 0)
    z = x[:5].clone().requires_grad_()
    logits = meter(z)
    logits[:, 0].sum().backward(retain_graph=True)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), z)
    assert gradient.abs().sum() > 0
    assert (meter.forwards, meter.backwards) == (10, 10)


def test_a_searched_example_costs_what_the_paper_says(net):
    """APGD: a forward and a backward a step and one more of each at the start; Square: forwards only; FAB: two forwards
    and a backward a step, and a forward to rank the targets."""
    model, x, y = net
    for attack, forwards, backwards in (
        (APGD(Linf(1e-6), steps=10), 11, 11),
        (Square(Linf(1e-6), queries=10), 11, 0),
        (FAB(Linf(1e-6), steps=10, targets=2), 41, 20),
    ):
        meter = Meter(model)
        for ended in AttackRun(attack, meter, batches(x[:3], y[:3], 3), 10, Effort()):
            meter.forwards -= 3 if ended else 0  # the look at what was found
        assert (meter.forwards, meter.backwards) == (3 * forwards, 3 * backwards)


def _with_norms() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
    )  # fmt: skip
    net(torch.randn(20, 3, 8, 8))
    return net.eval()


@pytest.mark.parametrize("compile", [False, True])
def test_a_prepared_network_changes_nothing_but_rounding(compile):
    net, x = _with_norms(), torch.rand(5, 3, 8, 8)
    meter = prepared(net, x, compile)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in meter.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    for n in (5, 2):
        torch.testing.assert_close(meter(x[:n]), net(x[:n]), rtol=0, atol=1e-5)
        gradients = [input_gradient(model, x[:n], lambda logits: logits[:, 0])[0] for model in (meter, net)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


class _Branching(nn.Module):
    """Python asks for a value: it cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class _Forgetful(nn.Module):
    """Its copies have other weights."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.randn(3)

    def __deepcopy__(self, _: object) -> "_Forgetful":
        return _Forgetful()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * self.w


def test_what_cannot_be_traced_or_comes_out_different_is_left_alone():
    x = torch.rand(2, 3, 4, 4)
    branching, forgetful = _Branching(), _Forgetful()
    torch.testing.assert_close(prepared(branching, x)(x), branching(x))
    assert prepared(forgetful, x).model is forgetful


class _NeverANumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 10), torch.nan)


def test_logits_that_are_no_numbers_are_never_right(net):
    """Though the largest of ten NaN is the first, and some images are of class 0."""
    _, x, y = net
    assert (y == 0).any()
    verdicts = run(_NeverANumber(), exam(x, y), Linf(0.05))
    assert verdicts.clean_accuracy == verdicts.robust_accuracy == 0
    assert set(verdicts.by) == {"clean"}

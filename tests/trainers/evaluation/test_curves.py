"""The smallest eps on models where a formula gives it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from trainers.attacks.apgd import APGD
from trainers.attacks.fgsm import FGSM
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.curves import OCTAVES, shown_up_to, smallest_eps
from trainers.evaluation.exam import Given
from trainers.evaluation.meter import Meter
from trainers.threat import L2, Linf, Threat
from trainers.types import Attack

ASKED, LARGEST = 0.01, 0.07
RADII = [1e-5, 3e-5, 5e-5, 0.0011, 0.0049, 0.00999, 0.01001, 0.0137, 0.031, 0.0401, 0.0641, 0.0699, 0.0701, 0.085]
"""From nearer than the bracket goes (0.01 / 256) to farther than ``LARGEST``."""
THREATS = [Linf(ASKED), L2(ASKED)]
each_threat = pytest.mark.parametrize("threat", THREATS, ids=repr)


class Halfspace(nn.Module):
    """Class 0 where ``<w, x - 1/2> > 0``, else 1."""

    def __init__(self) -> None:
        super().__init__()
        w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        margin = ((x - 0.5) * self.w).flatten(1).sum(1)
        return torch.stack([margin, -margin], 1)


def at(threat: Threat, radii: list[float]) -> tuple[Halfspace, Given]:
    """Images of either class, so far from the boundary: ``margin / ||w||_1`` for Linf, ``margin / ||w||_2`` for L2.
    No perturbation that is tried reaches a face of the cube."""
    model = Halfspace()
    w = model.w.detach()
    step = w.sign() if threat.norm == "Linf" else w / w.norm()
    labels = torch.arange(len(radii)) % 2
    towards = torch.tensor(radii, dtype=torch.float64) * (1 - 2 * labels)
    return model, Given(0.5 + towards[:, None, None, None] * step, labels, 100 - torch.arange(len(radii)))


def bracketed(radius: float, halvings: int) -> float:
    """What bracketing and bisection end with, where the attack always finds what there is."""
    ladder = sorted({min(ASKED * 2.0**k, LARGEST) for k in range(-OCTAVES, OCTAVES + 1)})
    hi = next((eps for eps in ladder if eps >= radius), torch.inf)
    lo = max((eps for eps in ladder if eps < radius), default=0.0)
    for _ in range(halvings if hi < torch.inf else 0):
        middle = (lo + hi) / 2
        lo, hi = (lo, middle) if middle >= radius else (middle, hi)
    return hi


def unknown(n: int) -> Tensor:
    return torch.full((n,), torch.inf)


def search(
    attack: Callable[[Threat], Attack], threat: Threat, model: nn.Module, exam: Given, known: Tensor, halvings: int
) -> Tensor:
    n = len(exam.ids)
    found = smallest_eps(
        attack, threat, Meter(model), exam, torch.arange(n), known, LARGEST, 2, Effort(batch_size=5), halvings
    )
    assert found.ids.equal(exam.ids)
    assert found.eps.dtype == torch.float64
    return found.eps


@each_threat
@pytest.mark.parametrize("halvings", [0, 1, 5])
def test_an_attack_that_finds_what_there_is_gives_the_last_bracket(threat, halvings):
    model, exam = at(threat, RADII)
    found = search(FGSM, threat, model, exam, unknown(len(RADII)), halvings)
    expected = torch.tensor([bracketed(radius, halvings) for radius in RADII], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    radii = torch.tensor(RADII, dtype=torch.float64)
    assert (found >= radii - 1e-12).all()
    inside = (radii > ASKED / 2**OCTAVES) & (radii < LARGEST)
    assert (found[inside] <= radii[inside] * (1 + 2.0**-halvings) + 1e-12).all()
    assert found.isinf().tolist() == [radius > LARGEST for radius in RADII]


@each_threat
def test_apgd_is_within_the_last_bracket_and_never_below_the_formula(threat):
    radii = [0.0011, 0.00999, 0.0137, 0.0401, 0.0641, 0.0701]
    model, exam = at(threat, radii)
    found = search(lambda scaled: APGD(scaled, steps=15), threat, model, exam, unknown(len(radii)), 4)
    truth = torch.tensor(radii, dtype=torch.float64)
    assert (found[:-1] <= truth[:-1] * (1 + 1.01 * 2**-4)).all()
    assert (found >= truth - 1e-12).all()
    assert found[-1] == torch.inf


@dataclass
class Watched:
    """``inner``, and which labels' images it was asked about at which eps."""

    inner: Callable[[Threat], Attack]
    asked: list[tuple[float, Tensor]] = field(default_factory=list)

    def __call__(self, threat: Threat) -> Attack:
        attack, asked = self.inner(threat), self.asked

        class Told:
            name = "told"

            def __init__(self) -> None:
                self.threat = threat

            def __call__(self, model: nn.Module, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
                asked.append((threat.eps, x))
                return attack(model, x, y, keys)

        return Told()

    def eps(self, exam: Given, row: int) -> list[float]:
        """Those an example was tried at."""
        return [eps for eps, x in self.asked if (x == exam.x[row]).flatten(1).all(1).any()]


@dataclass(frozen=True)
class Idle:
    """Finds nothing."""

    threat: Threat
    name: str = "idle"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        return x


@each_threat
def test_what_is_wrong_as_it_is_is_at_0_and_not_attacked(threat):
    model, exam = at(threat, RADII)
    exam = Given(exam.x, torch.where(torch.arange(len(RADII)) == 3, 1 - exam.labels, exam.labels), exam.ids)
    known = torch.where(model(exam.x).argmax(1) == exam.labels, torch.inf, 0.0)
    watched = Watched(FGSM)
    found = search(watched, threat, model, exam, known, 2)
    assert (found == 0).nonzero()[:, 0].tolist() == [3]
    assert watched.eps(exam, 3) == []
    assert watched.eps(exam, 2) != []


@each_threat
def test_what_nothing_fools_is_infinite_and_tried_up_to_the_largest_alone(threat):
    model, exam = at(threat, RADII)
    watched = Watched(Idle)
    assert search(watched, threat, model, exam, unknown(len(RADII)), 3).isinf().all()
    assert watched.eps(exam, 0) == pytest.approx([ASKED, 2 * ASKED, 4 * ASKED, LARGEST])


@each_threat
def test_what_is_known_stands_and_is_not_tried_again(threat):
    """Another attack fooled one example at 0.016 and one at the eps asked for: this one, which finds nothing, is tried
    below alone."""
    model, exam = at(threat, RADII)
    known = unknown(len(RADII)).double()
    known[5], known[8] = 0.016, ASKED
    watched = Watched(Idle)
    found = search(watched, threat, model, exam, known, 3)
    assert found[5] == pytest.approx(0.016)
    assert found[8] == ASKED
    assert found.isinf().sum() == len(RADII) - 2
    assert watched.eps(exam, 5) == pytest.approx([0.01, 0.013, 0.0145, 0.01525])
    assert watched.eps(exam, 8) == pytest.approx([0.005, 0.0075, 0.00875, 0.009375])


@each_threat
def test_what_is_known_only_helps(threat):
    """From 0.016 down, the bracket is [0.01, 0.016] or begins at 0.01 as ever."""
    model, exam = at(threat, RADII)
    radii = torch.tensor(RADII, dtype=torch.float64)
    known = torch.where(radii < 0.016, 0.016, torch.inf)
    found = search(FGSM, threat, model, exam, known, 5)
    below = search(FGSM, threat, model, exam, unknown(len(RADII)), 5)
    assert (found[radii < 0.01] == below[radii < 0.01]).all()
    assert (found >= radii - 1e-12).all()
    between = (radii > 0.01) & (radii < 0.016)
    assert between.sum() == 2
    assert (found[between] <= radii[between] + 0.006 / 2**5).all()


def test_only_the_rows_asked_for():
    threat = THREATS[0]
    model, exam = at(threat, RADII)
    rows = torch.tensor([9, 4])
    found = smallest_eps(FGSM, threat, Meter(model), exam, rows, unknown(2), LARGEST, 2, Effort(), 5)
    assert found.ids.equal(exam.ids[rows])
    assert found.eps.tolist() == pytest.approx([bracketed(RADII[9], 5), bracketed(RADII[4], 5)])


def test_all_of_the_cube_is_within_reach():
    """Up to eps 1, where rounding must not make it more."""
    for eps in (1 / 255, 8 / 255, 0.3, 0.7):
        model, exam = at(Linf(eps), [0.001, 0.0499])
        found = smallest_eps(Idle, Linf(eps), Meter(model), exam, torch.arange(2), unknown(2), 1.0, 2, Effort(), 1)
        assert found.eps.isinf().all()


def test_an_eps_of_0_is_refused():
    model, exam = at(Linf(ASKED), RADII)
    with pytest.raises(ValueError, match=r"threat\.eps=0 is nothing to search from"):
        search(FGSM, Linf(0), model, exam, unknown(len(RADII)), 1)


def test_a_curve_is_drawn_past_what_is_asked_and_to_where_nearly_all_are_fooled():
    inf = torch.inf
    assert shown_up_to(torch.tensor([0.01, 0.02, inf]), 0.1) == pytest.approx(0.125)
    assert shown_up_to(torch.cat([torch.linspace(0, 1, 101), torch.tensor([inf])]), 0.1) == pytest.approx(0.98)
    assert shown_up_to(torch.tensor([inf, inf]), 0.1) == pytest.approx(0.2)

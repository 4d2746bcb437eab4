"""ESZSL and ALE: exact without noise, the published formulas, invariances, and settings chosen on held-out classes."""

import math

import pytest
import torch

from trainers import noise
from trainers.data.attribute_world import AttributeWorld
from trainers.evaluation.zero_shot import ALE, ESZSL, ale, eszsl
from trainers.evaluation.zero_shot.compatibility import Compatibility
from trainers.evaluation.zero_shot.selection import folds, select

WORLD = AttributeWorld()
S, SEEN, UNSEEN = WORLD.attributes, WORLD.seen, WORLD.unseen
METHODS = [ESZSL(0.1, 10.0), ALE(epochs=3)]


def normal(rows: int, columns: int, seed: int) -> torch.Tensor:
    return noise.normal(noise.stream(torch.arange(rows), seed), (columns,), torch.float64)


def examples(each: int = 5, entries: int = 6, grain: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that are a linear map of the seen classes' attributes, their classes, and the map ``(d, a)``."""
    classes = SEEN.repeat_interleave(each)
    mapped = normal(entries, 6, 1)
    return S[classes] @ mapped.T + grain * normal(len(classes), entries, 2), classes, mapped


@pytest.mark.parametrize("candidates", [UNSEEN, torch.arange(64)])
@pytest.mark.parametrize("entries", [6, 40])
def test_without_noise_eszsl_names_every_class_it_never_saw(candidates, entries):
    x, y, mapped = examples(entries=entries)
    learnt = ESZSL(1e-6, 1e-6)(x, y, S)
    assert torch.equal(learnt.predict(S[UNSEEN] @ mapped.T, S, candidates), UNSEEN)
    assert torch.equal(learnt.predict(S[SEEN] @ mapped.T, S, torch.arange(64)), SEEN)


def test_without_noise_eszsl_is_twice_the_inverse_of_the_map_and_the_design():
    """``V → M⁻ᵀ · 2 (S Sᵀ)⁻¹``, and the world's design has ``S Sᵀ = 48 I``."""
    x, y, mapped = examples()
    expected = torch.linalg.inv(mapped).T * 2 / 48
    torch.testing.assert_close(ESZSL(1e-9, 1e-9)(x, y, S).matrix, expected, rtol=1e-7, atol=1e-9)


def test_eszsl_is_the_published_formula_written_with_its_own_matrices():
    x, y, _ = examples(entries=7, grain=0.5)
    big_x, big_s = x.T, S[SEEN].T
    big_y = torch.full((len(y), len(SEEN)), -1.0, dtype=torch.float64)
    big_y[torch.arange(len(y)), y] = 1.0
    left = torch.linalg.inv(big_x @ big_x.T + 0.3 * torch.eye(7).double())
    right = torch.linalg.inv(big_s @ big_s.T + 20 * torch.eye(6).double())
    torch.testing.assert_close(ESZSL(0.3, 20.0)(x, y, S).matrix, left @ big_x @ big_y @ big_s.T @ right)


def test_eszsl_is_where_its_objective_has_no_slope():
    """``||Xᵀ V S - Y||² + γ ||V S||² + λ ||Xᵀ V||² + γ λ ||V||²``, whose only stationary point the formula is."""
    x, y, _ = examples(entries=7, grain=0.5)
    v, s, gamma, lambda_ = ESZSL(0.3, 20.0)(x, y, S).matrix.requires_grad_(), S[SEEN].T, 0.3, 20.0
    target = 2 * (y[:, None] == SEEN).double() - 1
    loss = (x @ v @ s - target).square().sum() + gamma * (v @ s).square().sum()
    loss = loss + lambda_ * (x @ v).square().sum() + gamma * lambda_ * v.square().sum()
    (slope,) = torch.autograd.grad(loss, v)
    assert slope.abs().max() < 1e-9 * loss.item()


def test_ale_is_far_above_chance_on_classes_it_never_saw():
    x, y, mapped = examples(each=10, entries=20)
    learnt = ALE(epochs=20)(x, y, S)
    unseen = (learnt.predict(S[UNSEEN] @ mapped.T, S, UNSEEN) == UNSEEN).double().mean()
    seen = (learnt.predict(x, S, SEEN) == y).double().mean()
    assert unseen >= 8 / 16
    assert seen >= 24 / 48


def test_the_first_step_of_ale_by_hand():
    """At ``V = 0`` all classes violate: the first one met does, the rank is ``k - 1``, its weight 1 + 1/2 + 1/3."""
    eye, y = torch.eye(4).double(), torch.arange(4)
    v = ALE(step_size=0.5, epochs=1, batch_size=4)(eye, y, eye).matrix
    moved = 0.5 / 4 * (1 + 1 / 2 + 1 / 3)
    torch.testing.assert_close(v.diag(), torch.full((4,), moved).double())
    assert torch.equal((v < 0).sum(1), torch.ones(4, dtype=torch.int64))
    torch.testing.assert_close(v.sum(1), torch.zeros(4).double())
    assert torch.equal((v != 0).sum(1), torch.full((4,), 2))


def test_two_opposite_examples_of_ale_cancel_one_step_each():
    x, s = torch.tensor([[3.0, 4.0]] * 2).double(), torch.eye(2).double()
    assert ALE(step_size=0.5, epochs=1, batch_size=1)(x, torch.tensor([0, 1]), s).matrix.abs().max() < 1e-15


@pytest.mark.parametrize("violating", [1, 3, 7])
def test_the_rank_is_estimated_by_how_many_classes_were_met(violating):
    """The first of ``r`` violators among ``k - 1`` classes comes at place m with probability
    ``C(k - 1 - m, r - 1) / C(k - 1, r)``; the mean weight follows."""
    k, n = 8, 20_000
    v = torch.zeros(1, k).double()
    v[0, 0], v[0, 1 : 1 + violating] = 2.0, 1.5
    weights = torch.cat([torch.zeros(1), (1 / torch.arange(1, k)).cumsum(0)]).double()
    places = noise.uniform(noise.stream(torch.arange(n), 8), (k,))
    moved = ale._step(
        v, torch.ones(n, 1).double(), torch.zeros(n, dtype=torch.int64), torch.eye(k).double(), places, weights
    )
    share = [math.comb(k - 1 - m, violating - 1) / math.comb(k - 1, violating) for m in range(1, k)]
    expected = sum(p * float(weights[(k - 1) // m]) for m, p in enumerate(share, 1))
    assert sum(share) == pytest.approx(1)
    assert moved[0, 0] / n == pytest.approx(expected, rel=0.02)
    assert torch.equal(moved[0, 1 + violating :], torch.zeros(k - 1 - violating).double())
    assert (moved[0, 1 : 1 + violating] / n).tolist() == pytest.approx([-expected / violating] * violating, rel=0.06)


def test_ale_stands_still_where_every_margin_holds():
    x, y, _ = examples(each=4, entries=6)
    settled = ALE(step_size=5.0, epochs=300)(x, y, S)
    longer = ALE(step_size=5.0, epochs=330)(x, y, S)
    own = settled.scores(x, S[SEEN])
    right = own[torch.arange(len(y)), y]
    own[torch.arange(len(y)), y] = -torch.inf
    assert (right - own.max(1).values >= 1).all()
    assert torch.equal(settled.matrix, longer.matrix)


def test_ale_is_the_same_whatever_torch_s_generator_is_at_and_another_by_seed():
    x, y, _ = examples(entries=8, grain=0.5)
    torch.manual_seed(1)
    first, state = ALE(epochs=2)(x, y, S).matrix, torch.get_rng_state()
    torch.rand(5)
    assert torch.equal(ALE(epochs=2)(x, y, S).matrix, first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(ALE(epochs=2, seed=1)(x, y, S).matrix, first)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_without_examples_changes_nothing(method):
    x, y, _ = examples(grain=0.3)
    other = S.clone()
    other[UNSEEN] = 7 * normal(16, 6, 5)
    assert torch.equal(method(x, y, S).matrix, method(x, y, other).matrix)


def test_eszsl_does_not_know_the_order_of_examples_or_of_classes():
    x, y, _ = examples(entries=9, grain=0.5)
    rows, classes = noise.permutation(len(x), 3), noise.permutation(64, 4)
    learnt = ESZSL(0.1, 10.0)(x, y, S).matrix
    torch.testing.assert_close(ESZSL(0.1, 10.0)(x[rows], y[rows], S).matrix, learnt)
    torch.testing.assert_close(ESZSL(0.1, 10.0)(x, classes.argsort()[y], S[classes]).matrix, learnt)


def test_scaled_features_or_attributes_change_no_prediction():
    """Of ESZSL where gamma and lambda are scaled by the square, of ALE as it is; by a power of 2, to the last bit."""
    x, y, _ = examples(entries=9, grain=0.5)
    v = ESZSL(0.1, 10.0)(x, y, S).matrix
    torch.testing.assert_close(4 * ESZSL(1.6, 10.0)(4 * x, y, S).matrix, v)
    torch.testing.assert_close(4 * ESZSL(0.1, 160.0)(x, y, 4 * S).matrix, v)
    w = ALE(epochs=3)(x, y, S).matrix
    assert torch.equal(4 * ALE(epochs=3)(4 * x, y, S).matrix, w)
    assert torch.equal(4 * ALE(epochs=3)(x, y, 4 * S).matrix, w)


def test_float32_features_are_learnt_from_in_float64():
    x, y, _ = examples(entries=9, grain=0.5)
    assert ESZSL()(x.float(), y, S.float()).matrix.equal(ESZSL()(x.float().double(), y, S).matrix)


def test_candidates_bound_the_answer_and_equal_scores_go_to_the_first():
    x, y, _ = examples()
    assert torch.isin(ESZSL()(x, y, S).predict(x, S, UNSEEN), UNSEEN).all()
    nothing = Compatibility(torch.zeros(6, 6).double())
    assert nothing.predict(x[:3], S, torch.tensor([9, 4])).tolist() == [9, 9, 9]


def test_folds_share_the_classes_out_and_are_keyed():
    y = SEEN.repeat(3)
    dealt = folds(y, 5)
    assert torch.equal(torch.cat(dealt).sort().values, SEEN)
    assert sorted(len(fold) for fold in dealt) == [9, 9, 10, 10, 10]
    assert all(torch.equal(a, b) for a, b in zip(dealt, folds(y.flip(0), 5), strict=True))
    assert not torch.equal(folds(y, 5, seed=1)[0], dealt[0])


def test_the_method_that_carries_over_to_held_out_classes_is_selected():
    """Against one that learns nothing; the first of two equals is taken."""
    x, y, _ = examples(entries=30, grain=0.3)

    class Blind:
        def __call__(self, features, classes, attributes):
            return Compatibility(torch.zeros(features.shape[1], attributes.shape[1]).double())

    sighted = ESZSL(1.0, 1.0)
    chosen = select([Blind(), sighted, ESZSL(1.0, 1.0)], x, y, S, folds(y))
    assert chosen.method is sighted
    assert chosen.accuracies[0] == pytest.approx(1 / 16)  # all are given the first of 16 classes
    assert chosen.accuracies[1] == chosen.accuracies[2] > 0.5


def test_selection_learns_nothing_from_what_it_holds_out():
    x, y, _ = examples(entries=12, grain=0.3)
    out, met = folds(y, 4)[0], []

    class Watching:
        def __call__(self, features, classes, attributes):
            met.append(classes)
            return ESZSL()(features, classes, attributes)

    select([Watching()], x, y, S, [out])
    assert len(met) == 1
    assert not torch.isin(met[0], out).any()
    assert set(met[0].tolist()) | set(out.tolist()) == set(SEEN.tolist())


def test_the_grids_are_valid_and_hold_each_setting_once():
    assert len(set(eszsl.grid())) == len(eszsl.grid()) == 49
    assert len(set(ale.grid(3))) == len(ale.grid(3)) == 12
    assert {method.seed for method in ale.grid(3)} == {3}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_of_no_sense_are_refused(value):
    with pytest.raises(ValueError, match=r"eszsl\.gamma=.*above 0"):
        ESZSL(gamma=value)
    with pytest.raises(ValueError, match=r"eszsl\.lambda_=.*above 0"):
        ESZSL(lambda_=value)
    with pytest.raises(ValueError, match=r"ale\.step_size=.*above 0"):
        ALE(step_size=value)
    for name in ("epochs", "batch_size"):
        with pytest.raises(ValueError, match=rf"ale\.{name}=0 must be at least 1"):
            ALE(**{name: 0})


@pytest.mark.parametrize("method", METHODS)
def test_tables_that_nothing_can_be_learnt_from_are_refused(method):
    x, y, _ = examples()
    cases = [
        ((x[0], y, S), r"features \(6,\).*must be tables"),
        ((x[:3], y, S), r"3 features and 240 classes"),
        ((x * torch.nan, y, S), r"features has values that are not finite"),
        ((x, y, S / 0), r"attributes has values that are not finite"),
        ((x, torch.zeros_like(y), S), r"examples of 1 class.*at least 2"),
        ((x, y, S[:40]), r"class 47 has no row among the 40"),
        ((x, y - 1, S), r"class -1 has no row"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            method(*given)


def test_what_does_not_fit_is_refused():
    x, y, _ = examples()
    learnt = ESZSL()(x, y, S)
    with pytest.raises(ValueError, match=r"features of 5 entries.*do not fit"):
        learnt.scores(x[:, :5], S)
    with pytest.raises(ValueError, match="candidates is empty"):
        learnt.predict(x, S, SEEN[:0])
    with pytest.raises(ValueError, match="all features are 0"):
        ALE()(0 * x, y, S)
    for count in (1, 25):
        with pytest.raises(ValueError, match=rf"zero_shot.folds={count} of 48"):
            folds(y, count)
    with pytest.raises(ValueError, match="nothing to choose from"):
        select([], x, y, S, folds(y))
    for out in (SEEN[:1], UNSEEN, SEEN[:47]):
        with pytest.raises(ValueError, match=r"held-out classes.*2 of the 48"):
            select([ESZSL()], x, y, S, [out])

import numpy as np
import pytest
import torch

from trainers.data.mixing import Mixing

X = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 4


def mixed(mixing, *step):
    return mixing(X.clone(), Y, 4, 0, *step)


def test_defaults_leave_the_batch_alone():
    x, y = mixed(Mixing(), 0, 0, 0)
    assert x.equal(X)
    assert y.equal(Y)
    assert not Mixing().soft


def test_smoothing_alone_is_soft_and_exact():
    x, y = mixed(Mixing(label_smoothing=0.2), 0, 0, 0)
    assert x.equal(X)
    torch.testing.assert_close(y, 0.8 * torch.eye(4)[Y] + 0.2 / 4)


def test_mixup_mixes_images_and_targets_alike():
    x, y = mixed(Mixing(mixup_alpha=0.8), 0, 5, 0)
    lam = float(y[0, 0])
    assert 0 < lam < 1
    torch.testing.assert_close(x, lam * X + (1 - lam) * X.flip(0))
    torch.testing.assert_close(y.sum(1), torch.ones(8))


def test_cutmix_pastes_a_box_and_weighs_targets_by_its_area():
    for step in range(20):
        x, y = mixed(Mixing(cutmix_alpha=1.0), 0, step, 0)
        kept = (x == X).all(1)
        assert (kept | (x == X.flip(0)).all(1)).all()
        torch.testing.assert_close(float(y[0, 0]), float(kept[0].float().mean()), atol=1e-6, rtol=0)


def test_draws_are_keyed_by_seed_epoch_step_and_rank_and_leave_numpy_alone():
    np.random.seed(7)
    expected = np.random.RandomState(7).rand(3)
    mixing = Mixing(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1)
    assert all(a.equal(b) for a, b in zip(mixed(mixing, 1, 2, 0), mixed(mixing, 1, 2, 0), strict=True))
    assert len({float(mixed(mixing, *step)[1][0, 0]) for step in ((1, 2, 0), (1, 3, 0), (2, 2, 0), (1, 2, 1))}) == 4
    assert np.array_equal(np.random.rand(3), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup_alpha": -1}, r"data.mixing.mixup_alpha=-1 must not be negative"),
        ({"prob": 1.5}, r"data.mixing.prob=1.5 must be a probability"),
        ({"label_smoothing": 1}, r"data.mixing.label_smoothing=1 must be in \[0, 1\)"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**settings)

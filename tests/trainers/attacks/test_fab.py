"""The projection FAB steps along."""

import pytest
import torch
from torch import Tensor

from trainers.attacks.fab import nearest_on_plane


def bisected(norm: str, x: Tensor, w: Tensor, needed: Tensor) -> Tensor:
    """The same by halving an interval of step lengths two hundred times."""
    up = (w > 0) == (needed > 0)[:, None]
    room, weight = torch.where(up, 1 - x, x), w.abs()
    speed = torch.ones_like(w) if norm == "Linf" else weight
    low, high = torch.zeros(len(x), 1).double(), torch.full((len(x), 1), 1e9).double()
    for _ in range(200):
        middle = (low + high) / 2
        enough = (weight * torch.minimum(middle * speed, room)).sum(1, keepdim=True) >= needed.abs()[:, None]
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    moved = torch.minimum(high * speed, room) * (weight > 0)
    return torch.where(up, moved, -moved)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("size", [0.01, 0.5, 5.0, 1e3])
def test_it_is_the_smallest_move_that_reaches_the_plane(norm, size):
    x, w = torch.rand(50, 40).double(), torch.randn(50, 40).double()
    x[:20] = (x[:20] * 3 - 1).clamp(0, 1)  # many pixels at the edge of the cube, where there is no room
    w[::3, ::4] = 0
    needed = size * torch.randn(50).double()
    d = nearest_on_plane(norm, x, w, needed)
    assert ((x + d) >= -1e-12).all()
    assert ((x + d) <= 1 + 1e-12).all()
    torch.testing.assert_close(d, bisected(norm, x, w, needed), rtol=1e-6, atol=1e-9)
    reached = (w * d).sum(1)
    possible = torch.where((w > 0) == (needed > 0)[:, None], 1 - x, x).mul(w.abs()).sum(1) >= needed.abs()
    torch.testing.assert_close(reached[possible], needed[possible], rtol=1e-9, atol=1e-12)


def test_in_l1_it_is_the_cheapest_move_that_reaches_the_plane():
    """No coordinate moves before all those of more weight have used up their room, and only one moves in part."""
    x, w = torch.rand(50, 40).double(), torch.randn(50, 40).double()
    x[:20] = (x[:20] * 3 - 1).clamp(0, 1)
    w[::3, ::4] = 0
    for size in (0.01, 0.5, 5.0, 1e3):
        needed = size * torch.randn(50).double()
        d = nearest_on_plane("L1", x, w, needed)
        assert ((x + d >= -1e-12) & (x + d <= 1 + 1e-12)).all()
        up = (w > 0) == (needed > 0)[:, None]
        room = torch.where(up, 1 - x, x) * (w != 0)
        possible = (w.abs() * room).sum(1) >= needed.abs()
        torch.testing.assert_close((w * d).sum(1)[possible], needed[possible], rtol=1e-9, atol=1e-12)
        assert torch.equal(d.abs()[~possible], room[~possible])
        share = (d.abs() / room.clamp_min(1e-300)).gather(1, w.abs().argsort(dim=1, descending=True))
        usable = (room > 0).gather(1, w.abs().argsort(dim=1, descending=True))
        for row, used in zip(share, usable, strict=True):
            row = row[used]
            assert (row[:-1] >= row[1:]).all()
            assert ((row > 1e-12) & (row < 1 - 1e-9)).sum() <= 1


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_no_move_where_none_is_needed_and_none_where_nothing_helps(norm):
    x, w = torch.rand(3, 8), torch.randn(3, 8)
    assert not nearest_on_plane(norm, x, w, torch.zeros(3)).any()
    assert not nearest_on_plane(norm, x, torch.zeros(3, 8), torch.ones(3)).any()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_no_direction_is_no_move_and_what_is_no_number_ends(norm):
    x = torch.full((2, 3, 2, 2), 0.5)
    assert (nearest_on_plane(norm, x, torch.zeros_like(x), torch.tensor([0.1, 50.0])) == 0).all()
    w, needed = torch.full_like(x, torch.nan), torch.tensor([torch.nan, 1.0])
    assert nearest_on_plane(norm, x, w, needed).shape == x.shape

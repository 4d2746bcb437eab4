import pytest
import torch

from trainers import noise
from trainers.data import order

IDS = noise.stream(torch.arange(1000), 5)


def test_an_epoch_visits_each_example_once_and_differs_from_the_next():
    first, second = order.shuffled(IDS, 0, 0), order.shuffled(IDS, 0, 1)
    assert first.sort().values.equal(torch.arange(1000))
    assert (first == second).float().mean() < 0.05


def test_leaving_one_example_out_moves_no_other():
    whole = IDS[order.shuffled(IDS, 0, 3)]
    without = IDS[IDS[17] != IDS]
    assert without[order.shuffled(without, 0, 3)].equal(whole[whole != IDS[17]])


@pytest.mark.parametrize("lanes", [1, 4, 7])
def test_nearby_takes_each_once_and_none_further_than_the_buffer(lanes):
    starts = [0, 100, 130, 400, 777]
    positions = torch.arange(1000)[torch.arange(1000) % 10 != 3]
    found = order.nearby(positions, IDS, starts, 50, lanes, seed=1, epoch=2)
    assert found.shape == (len(positions) // lanes, lanes)
    assert len(found.unique()) == found.numel()
    assert set(found.flatten().tolist()) <= set(positions.tolist())
    for lane in found.T:
        # Memory: between the furthest example read so far and the nearest not yet taken.
        shards = torch.bucketize(lane, torch.tensor(starts), right=True)
        visited = list(dict.fromkeys(shards.tolist()))
        rank = {shard: i for i, shard in enumerate(visited)}
        sequence = torch.tensor([rank[s] for s in shards.tolist()]) * 1000 + lane
        place = sequence.argsort().argsort()
        assert (place - torch.arange(len(lane))).abs().max() <= 50


def test_nearby_shuffles():
    found = order.nearby(torch.arange(1000), IDS, [0], 200, 1, seed=0, epoch=0)[:, 0]
    moved = (found - torch.arange(1000)).abs().float()
    assert moved.mean() > 30
    assert not found.equal(order.nearby(torch.arange(1000), IDS, [0], 200, 1, seed=0, epoch=1)[:, 0])


@pytest.mark.parametrize("starts", [None, [0, 300, 310, 900]])
def test_held_out_parts_are_disjoint_and_complete(starts):
    a, b, rest = order.held_out(IDS, starts, 0, 100, 250)
    assert (len(a), len(b), len(rest)) == (100, 250, 650)
    assert torch.cat([a, b, rest]).sort().values.equal(torch.arange(1000))


def test_a_smaller_limit_is_a_subset():
    positions = torch.arange(0, 1000, 2)
    small, large = (set(order.limited(positions, IDS, n, 0).tolist()) for n in (20, 200))
    assert len(small) == 20
    assert small < large < set(positions.tolist())

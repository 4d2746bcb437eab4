"""Counter-based noise: a published reference, independence of the batch, and the distributions it claims."""

import math

import pytest
import torch

from trainers import noise

# SplitMix64 seeded with 1234567: the reference outputs of Vigna's splitmix64.c, as listed by Rosetta Code.
REFERENCE = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_stream_is_splitmix64():
    for i, expected in enumerate(REFERENCE):
        drawn = noise.stream(torch.tensor([1234567]), i)
        assert drawn.item() % 2**64 == expected


def test_uniform_draws_are_pinned():
    """A change of the stream would change every resumed run and every published verdict."""
    drawn = noise.uniform(torch.tensor([0, 1]), (3,))
    expected = _reference_uniform(0, 3) + _reference_uniform(1, 3)
    assert drawn.flatten().tolist() == expected


def _reference_uniform(key: int, n: int) -> list[float]:
    """The same formula in Python's unbounded integers."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    return [(mix((mix(key) + (i + 1) * golden) & mask) >> 40) / 2**24 for i in range(n)]


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_an_example_draws_the_same_in_any_batch(draw):
    keys = torch.tensor([5, 2**62, -3, 0, 11])
    whole = draw(keys, (3, 4))
    assert whole.shape == (5, 3, 4)
    order = torch.tensor([3, 0, 4])
    assert torch.equal(draw(keys[order], (3, 4)), whole[order])


def test_parts_name_different_streams():
    keys = torch.arange(4)
    streams = [noise.stream(keys, *parts) for parts in ((), (0,), (1,), (0, 1), (1, 0), (0, 0), (2**40,), (-5,))]
    assert len(torch.cat(streams).unique()) == 4 * len(streams)


def test_neighbouring_ids_and_streams_are_uncorrelated():
    n = 20_000
    ids = torch.arange(n)
    here, there, later = (noise.uniform(k, ()) for k in (ids, ids + n, noise.stream(ids, 1)))
    table = torch.stack([here, there, later, here.roll(1)]).double().corrcoef()
    assert (table - torch.eye(4)).abs().max() < 5 / math.sqrt(n)


def test_uniform_fills_the_unit_interval():
    u = noise.uniform(torch.arange(1000), (100,), torch.float64).flatten()
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, 20, 0, 1)
    chi_square = ((counts - 5000) ** 2 / 5000).sum()
    assert chi_square < 45  # 19 degrees of freedom: 0.999 of all draws


def test_normal_has_the_moments_of_a_standard_normal():
    z = noise.normal(torch.arange(1000), (100,), torch.float64).flatten()
    n = len(z)
    assert z.isfinite().all()
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert noise.normal(torch.arange(2), (3,)).dtype == torch.float32


def test_integers_cover_their_range_evenly():
    drawn = noise.integers(torch.arange(7000), 7)
    counts = drawn.bincount(minlength=7)
    assert len(counts) == 7
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 22.5  # 6 degrees of freedom: 0.999


def test_permutation_holds_every_item_and_is_fixed_by_its_parts():
    first = noise.permutation(500, 3, 1)
    assert torch.equal(first.sort().values, torch.arange(500))
    assert torch.equal(first, noise.permutation(500, 3, 1))
    assert (first == noise.permutation(500, 3, 2)).sum() < 10
    assert (first == torch.arange(500)).sum() < 10


def test_only_fresh_touches_the_global_generator():
    before = torch.random.get_rng_state()
    keys = noise.stream(torch.arange(4), 1, 2)
    noise.uniform(keys, (5,)), noise.normal(keys, (5,)), noise.integers(keys, 9), noise.permutation(9, 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(3)
    drawn = noise.fresh(100, torch.device("cpu"))
    assert not torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(noise.fresh(100, torch.device("cpu")), drawn)
    assert len(drawn.unique()) == 100

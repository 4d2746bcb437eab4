"""What every batcher keeps to, over every source: order, shares, resume, held-out splits, damage."""

import itertools
import random

import numpy as np
import pytest
import torch

from trainers.data.augment import Augment
from trainers.data.digits import Digits
from trainers.data.folder import Folder
from trainers.data.mixing import Mixing
from trainers.data.parquet import Parquet
from trainers.data.photographic import Photographic
from trainers.data.resident import Resident
from trainers.data.shards import Shards
from trainers.data.streaming import Streaming

KINDS = ["resident", "streaming", "streaming_loaders", "parquet_lanes", "tar_lanes", "tar_lanes_loaders", "folder"]
SIZE = (3, 10, 10)


@pytest.fixture(params=KINDS)
def build(request, parquet, tars, folder):
    """A maker of batchers with 4-example batches over small sets, ``corrupt``ed on request."""

    def made(**settings):
        settings = {"batch_size": 4, "validation": 6, "held_out_batch_size": 4} | settings
        kind = request.param
        if kind == "resident":
            return Resident(Parquet(str(parquet)), augment=Augment(shift=2, cutout=3), **settings)
        settings |= {"input_size": SIZE, "transform": Photographic(crop_pct=1.0), "prefetch": 2}
        settings |= {"loaders": 2 if "loaders" in kind else 0}
        if "lanes" in kind:
            settings |= {"lanes": 2, "buffer": 10}
        source = {"p": Parquet(str(parquet)), "s": Parquet(str(parquet)), "t": Shards(str(tars))}
        return Streaming(source.get(kind[0], Folder(str(folder))), **settings)

    made.kind = request.param
    return made


def equal(a, b):
    return len(a) == len(b) and all(x.equal(y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


def keys(batches):
    return [int(key) for batch in batches for key in batch.keys]


def test_an_epoch_is_pixels_in_range_each_example_at_most_once(build):
    data = build()
    batches = list(data.train(0))
    assert len(batches) == data.steps() == data.size("train") // 4
    assert len(set(keys(batches))) == len(keys(batches)) == 4 * data.steps()
    for x, y, k in batches:
        assert x.dtype == torch.float32
        assert x.min() >= 0
        assert x.max() <= 1
        assert x.shape == (4, *data.input_size)
        assert y.dtype == k.dtype == torch.int64
    assert equal(batches, list(data.train(0)))
    assert keys(batches) != keys(data.train(1))


@pytest.mark.parametrize("start", [1, 3])
def test_a_resume_is_the_tail_of_the_epoch_bit_for_bit(build, start):
    mixing = Mixing(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1)
    whole = list(build(mixing=mixing).train(2))
    assert equal(list(build(mixing=mixing).train(2, start=start)), whole[start:])


def test_the_shares_of_two_ranks_make_up_the_whole_batch(build):
    data = build()
    whole = list(data.train(1))
    ranks = zip(data.train(1, rank=0, world=2), data.train(1, rank=1, world=2), strict=True)
    joined = [tuple(torch.cat(pair) for pair in zip(a, b, strict=True)) for a, b in ranks]
    assert equal(joined, whole)


def test_an_abandoned_epoch_does_not_spill_into_the_next(build):
    data = build()
    expected = list(build().train(1))
    left = data.train(0)
    next(left)
    left.close()
    assert equal(list(data.train(1)), expected)


def test_held_out_examples_come_once_over_all_ranks_and_never_in_training(build):
    data = build()
    trained = {key for epoch in range(3) for key in keys(data.train(epoch))}
    for split in ("validation", "test"):
        alone = keys(data.held_out(split))
        shares = [keys(data.held_out(split, rank, 3)) for rank in range(3)]
        assert len(set(alone)) == len(alone) == data.size(split)
        assert sorted(itertools.chain(*shares)) == sorted(alone)
        assert trained.isdisjoint(alone)
    assert set(keys(data.held_out("test", limit=2))) < set(keys(data.held_out("test", limit=4)))


def test_test_examples_can_be_held_out_of_training(build):
    data = build(test=5)
    assert data.size("test") == 5
    assert set(keys(data.held_out("test"))).isdisjoint(keys(data.held_out("validation")))
    assert set(keys(data.train(0))).isdisjoint(keys(data.held_out("test")))


def test_labels_belong_to_their_examples(build):
    data = build()
    examples, _ = data._roster.members["train"]
    label = dict(zip(examples.ids.tolist(), examples.labels.tolist(), strict=True))
    for _, y, k in data.train(0):
        assert y.tolist() == [label[key] for key in k.tolist()]


def test_the_global_generators_are_left_alone(build):
    data = build(mixing=Mixing(mixup_alpha=1.0))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    list(data.train(0))
    list(data.held_out("test"))
    assert torch.get_rng_state().equal(states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


def test_soft_targets(build):
    data = build(mixing=Mixing(label_smoothing=0.1))
    assert data.soft_targets
    assert next(data.train(0)).y.shape == (4, 3)
    assert next(data.held_out("test")).y.dim() == 1
    assert not build().soft_targets


def test_the_same_set_has_the_same_digest(build, parquet, make):
    assert build().digest == build().digest
    if build.kind == "resident":
        before = build().digest
        make.parquet(parquet / "test-00000-of-00001.parquet", [make.picture(s) for s in range(80, 89)], [0, 1, 2] * 3)
        assert build().digest != before


@pytest.mark.parametrize(
    ("settings", "world", "message"),
    [
        ({"batch_size": 0}, 1, r"^batch_size=0 must be at least 1"),
        ({"batch_size": 64}, 1, r"^batch_size=64 is above the \d+ training examples"),
        ({"batch_size": 4}, 3, r"^batch_size=4 .* does not divide by workers=3: set batch_size=3"),
        (
            {"batch_size": 6, "mixing": Mixing(mixup_alpha=1.0)},
            2,
            r"^batch_size=6 leaves 3 examples to each of workers=2.*set batch_size=8",
        ),
        ({"validation": 60}, 1, r"data.validation=60 and data.test=0 hold out all"),
        ({"validation": -1}, 1, r"data.validation=-1 must be at least 0"),
        ({"on_corrupt": "ignore"}, 1, r"data.on_corrupt='ignore' must be one of error, skip"),
        ({"max_corrupt": 5}, 1, r"data.max_corrupt=5 must be a share"),
        ({"held_out_batch_size": 0}, 1, r"data.held_out_batch_size=0 must be at least 1"),
    ],
)
def test_mistakes_are_refused_before_training(build, settings, world, message):
    with pytest.raises(ValueError, match=message):
        build(**settings).train(0, world=world)


def test_no_validation_is_said():
    data = Resident(Digits(), 64)
    assert data.size("validation") == 0
    with pytest.raises(ValueError, match=r"data.validation=0: nothing is held out"):
        data.held_out("validation")


def test_lanes_must_suit_source_workers_and_batch(tars, folder):
    with pytest.raises(ValueError, match=r"data.lanes=4 is for tar and parquet shards.*Folder"):
        Streaming(Folder(str(folder)), 4, SIZE, lanes=4)
    with pytest.raises(ValueError, match=r"data.lanes=3 must be a multiple of workers=2"):
        Streaming(Shards(str(tars)), 6, SIZE, lanes=3).check(2)


def test_sizes_must_agree_or_be_given(folder):
    with pytest.raises(ValueError, match=r"set data.input_size=\[3,12,12\]"):
        Resident(Folder(str(folder)), 4)
    assert next(Resident(Folder(str(folder)), 4, input_size=[1, 8, 8]).train(0)).x.shape == (4, 1, 8, 8)
    with pytest.raises(ValueError, match=r"data.input_size=\[2, 8, 8\] must be"):
        Resident(Folder(str(folder)), 4, input_size=[2, 8, 8])
    with pytest.raises(ValueError, match=r"above data.memory_gb=1e-06: .*data=folder"):
        Resident(Folder(str(folder)), 4, input_size=[3, 64, 64], memory_gb=1e-6)


def test_resident_statistics_are_those_of_the_training_pixels():
    data = Resident(Digits(), 8, validation=100)
    examples, rows = data._roster.members["train"]
    pixels = torch.stack([torch.from_numpy(np.array(examples.image(int(i)))) for i in rows]) / 255.0
    assert data.mean == pytest.approx([pixels.double().mean().item()], rel=1e-6)
    assert data.std == pytest.approx([pixels.double().std(correction=0).item()], rel=1e-6)
    assert Resident(Digits(), 8, mean=[0.5], std=[0.25]).mean == (0.5,)

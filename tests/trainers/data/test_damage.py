"""Corrupt images, empty classes and labels out of range."""

import pytest

from trainers.data.folder import Folder
from trainers.data.parquet import Parquet
from trainers.data.photographic import Photographic
from trainers.data.resident import Resident
from trainers.data.streaming import Streaming

SIZE, BAD = (3, 10, 10), 11
NAME = "train-00000-of-00001.parquet row 11"
PLAIN = Photographic(crop_pct=1.0)


@pytest.fixture
def sets(tmp_path, make):
    """Two copies of a set of 40 + 6 examples; in the second, row 11 of training is cut short."""
    roots = []
    for name, bad in (("whole", None), ("damaged", BAD)):
        root = tmp_path / name
        root.mkdir()
        contents = [make.picture(s) if s != bad else make.picture(s)[:70] for s in range(40)]
        make.parquet(root / "train-00000-of-00001.parquet", contents, [s % 3 for s in range(40)])
        make.parquet(root / "test-00000-of-00001.parquet", [make.picture(s) for s in range(50, 56)], [0, 1, 2] * 2)
        roots.append(Parquet(str(root)))
    return roots


def keys(batches):
    return [int(key) for batch in batches for key in batch.keys]


def test_an_error_names_the_image_and_the_remedy(sets):
    message = rf"corrupt image {NAME} \(.+\): repair or remove it, or set data.on_corrupt=skip"
    with pytest.raises(ValueError, match=message):
        Resident(sets[1], 4)
    with pytest.raises(ValueError, match=message):
        list(Streaming(sets[1], 4, SIZE, loaders=1, transform=PLAIN).train(0))


def test_resident_leaves_it_out_and_no_other_moves(sets):
    whole = Resident(sets[0], 1, validation=5)
    damaged = Resident(sets[1], 1, validation=5, on_corrupt="skip", max_corrupt=0.1)
    assert damaged.skipped == {NAME: 1}
    lost = int(sets[0].split("train").ids[BAD])
    assert keys(damaged.train(3)) == [key for key in keys(whole.train(3)) if key != lost]
    assert keys(damaged.held_out("validation")) == [key for key in keys(whole.held_out("validation")) if key != lost]
    before, after = ({int(b.keys): b.x for b in data.train(3)} for data in (whole, damaged))
    assert all(x.equal(before[key]) for key, x in after.items())


@pytest.mark.parametrize("settings", [{"loaders": 0}, {"loaders": 2}, {"loaders": 0, "lanes": 2}])
def test_streaming_puts_another_in_its_place_and_no_other_moves(sets, settings):
    settings |= {"transform": PLAIN}
    whole = Streaming(sets[0], 4, SIZE, **settings)
    damaged = Streaming(sets[1], 4, SIZE, on_corrupt="skip", max_corrupt=0.1, **settings)
    lost = int(sets[0].split("train").ids[BAD])
    before, after = keys(whole.train(1)), keys(damaged.train(1))
    assert len(before) == len(after) == 40
    assert [a for a, b in zip(after, before, strict=True) if b != lost] == [b for b in before if b != lost]
    assert lost not in after
    assert damaged.skipped == {NAME: 1}
    assert keys(damaged.train(1)) == after
    assert damaged.skipped == {NAME: 2}


def test_ranks_count_the_same_or_each_its_own_as_replicated_says(sets):
    skip = {"on_corrupt": "skip", "max_corrupt": 0.1}
    resident = [Resident(sets[1], 2, **skip) for _ in range(2)]
    streaming = [Streaming(sets[1], 4, SIZE, loaders=0, transform=PLAIN, **skip) for _ in range(2)]
    for batchers in (resident, streaming):
        for rank, data in enumerate(batchers):
            list(data.train(0, rank=rank, world=2))
        counted = [data.skipped.total() for data in batchers]
        assert sorted(counted) == ([1, 1] if batchers[0].replicated else [0, 1])


def test_a_corrupt_held_out_image_is_left_out(sets, make):
    from pathlib import Path

    path = Path(sets[1].path)
    make.parquet(path / "test-00000-of-00001.parquet", [make.picture(50), b"", make.picture(52)], [0, 1, 2])
    data = Streaming(Parquet(str(path)), 4, SIZE, loaders=0, on_corrupt="skip", max_corrupt=0.5, transform=PLAIN)
    assert len(keys(data.held_out("test"))) == 2
    assert data.skipped == {"test-00000-of-00001.parquet row 1": 1}


def test_too_many_are_fatal_even_when_skipped(sets):
    with pytest.raises(ValueError, match=r"1 corrupt images .*row 11.* are more than data.max_corrupt=0.01 of 40"):
        Resident(sets[1], 4, on_corrupt="skip", max_corrupt=0.01)


def test_an_empty_class_is_named(sets):
    with pytest.raises(ValueError, match=r"no training example of class 'dog' \(1 of 4 classes\)"):
        Resident(Parquet(sets[0].path, class_names=["ant", "bee", "cow", "dog"]), 4)


def test_a_class_emptied_by_damage_is_named(tmp_path, make):
    for name in ("ant/1", "ant/2", "bee/1"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make.picture(1) if "ant" in name else b"no picture")
    with pytest.raises(ValueError, match=r"no training example of class 'bee'"):
        Resident(Folder(str(tmp_path)), 1, test=1, split_seed=_keeps_bee(tmp_path), on_corrupt="skip", max_corrupt=1)


def _keeps_bee(path):
    """A split seed that holds out an ant."""
    from trainers.data import order

    examples = Folder(str(path)).split("train")
    return next(seed for seed in range(50) if int(order.held_out(examples.ids, None, seed, 1)[0]) != 2)


def test_a_label_out_of_range_is_named(sets):
    with pytest.raises(ValueError, match=r"label 2 of train-00000-.* row 2 is outside 0 ... 1 \(13 of 40"):
        Resident(Parquet(sets[0].path, class_names=2), 4)
    with pytest.raises(ValueError, match=r"label 2 of"):
        Streaming(Parquet(sets[0].path, class_names=2), 4, SIZE)

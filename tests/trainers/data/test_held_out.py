"""What a model is judged on: the split it never trained on, the same examples and pixels wherever they are read."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from trainers.attacks.cascade import Cascade
from trainers.attacks.fgsm import FGSM
from trainers.data.folder import Folder
from trainers.data.held_out import HeldOut
from trainers.data.parquet import Parquet
from trainers.data.photographic import Photographic
from trainers.data.resident import Resident
from trainers.data.shards import Shards
from trainers.data.streaming import Streaming
from trainers.evaluation.robustness import evaluate
from trainers.threat import Linf

SIZE = (3, 10, 10)
CENTRE = Photographic(crop_pct=0.8)


class _Split:
    def __init__(self, ids: list[int], labels: list[int]) -> None:
        self.ids, self.labels, self.starts, self.digest = torch.tensor(ids), torch.tensor(labels), None, "0"

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, i: int) -> Image.Image:
        return Image.new("RGB", (4, 4))

    def name(self, i: int) -> str:
        return f"no {i}"


class _Only:
    """A set with a test split alone."""

    classes = ("a", "b")

    def __init__(self, ids: list[int], labels: list[int]) -> None:
        self._split = _Split(ids, labels)

    def split(self, name: str) -> _Split:
        assert name == "test"
        return self._split


def gathered(batches) -> tuple[Tensor, Tensor, Tensor]:
    """``(x, y, keys)`` of all of them."""
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def whole(exam: HeldOut) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(exam.batch(torch.arange(len(exam))))


def ids(exam: HeldOut) -> set[int]:
    return set(exam.ids.tolist())


def test_a_set_without_training_files_will_do(parquet):
    for path in parquet.glob("train-*"):
        path.unlink()
    exam = HeldOut(Parquet(str(parquet), class_names=["ant", "bee", "cow"]))
    assert exam.classes == ("ant", "bee", "cow")
    assert (len(exam), exam.of, exam.input_size) == (9, 9, (3, 12, 12))
    x, y, keys = whole(exam)
    assert y.tolist() == exam.labels.tolist() == [0, 1, 2] * 3
    assert keys.equal(exam.ids)
    assert (x.dtype, tuple(x.shape)) == (torch.float32, (9, 3, 12, 12))
    assert x.min() >= 0
    assert 0.5 < x.max() <= 1


@pytest.mark.parametrize(("validation", "test", "split_seed"), [(0, 0, 0), (5, 11, 0), (0, 11, 3)])
def test_the_examples_are_those_that_training_holds_out(parquet, validation, test, split_seed):
    settings = {"validation": validation, "test": test, "split_seed": split_seed}
    trained = Resident(Parquet(str(parquet)), 4, **settings)
    exam = HeldOut(Parquet(str(parquet)), **settings)
    for ours, theirs in zip(whole(exam), gathered(trained.held_out("test")), strict=True):
        assert ours.equal(theirs)
    assert ids(exam).isdisjoint(gathered(trained.train(0))[2].tolist())
    assert exam.of == (test or 9)


def test_of_a_model_trained_in_lanes_they_are_whole_shards(tars):
    trained = Streaming(Shards(str(tars)), 4, SIZE, test=12, lanes=2, loaders=0, transform=CENTRE)
    exam = HeldOut(Shards(str(tars)), SIZE, CENTRE, test=12, lanes=2)
    assert exam.ids.equal(gathered(trained.held_out("test"))[2])
    assert ids(exam).isdisjoint(gathered(trained.train(0))[2].tolist())
    assert exam.chosen != HeldOut(Shards(str(tars)), SIZE, CENTRE, test=12).chosen


def test_a_limit_is_a_keyed_subset_and_grows_into_the_whole(parquet):
    source = _Only(list(range(0, 2000, 10)), [0, 1] * 100)
    exams = [HeldOut(source, limit=limit) for limit in (20, 100, None)]
    assert [len(exam) for exam in exams] == [20, 100, 200]
    assert {exam.of for exam in exams} == {200}
    assert ids(exams[0]) < ids(exams[1]) < ids(exams[2])
    assert exams[0].ids.tolist() != exams[2].ids[:20].tolist()
    assert ids(exams[0]) != ids(HeldOut(source, limit=20, split_seed=1))
    assert ids(exams[1]) == ids(HeldOut(_Only(list(range(0, 2000, 10))[::-1], [0, 1] * 100), limit=100))
    limited = Resident(Parquet(str(parquet)), 4).held_out("test", limit=4)
    assert HeldOut(Parquet(str(parquet)), limit=4).ids.equal(gathered(limited)[2])


def test_only_the_files_that_are_named(folder):
    exam = HeldOut(Folder(str(folder)), SIZE, only=["29.png", "some/where/24.png\n", " "])
    assert [exam.name(row) for row in range(len(exam))] == ["val/ant/24.png", "val/cow/29.png"]
    assert (exam.labels.tolist(), exam.of) == ([0, 2], 6)
    with pytest.raises(ValueError, match=r"only names 2 images that are not there \(1.png, 77.png\)"):
        HeldOut(Folder(str(folder)), SIZE, only=["24.png", "1.png", "77.png"])
    with pytest.raises(ValueError, match="no examples to judge on"):
        HeldOut(Folder(str(folder)), SIZE, only=[], limit=3)


def test_a_name_that_two_files_have_is_refused_where_it_is_asked_for(folder, make):
    (folder / "val/bee/24.png").write_bytes(make.picture(3))
    assert len(HeldOut(Folder(str(folder)), SIZE, only=["29.png"])) == 1
    with pytest.raises(ValueError, match=r"2 images are called that \(val/ant/24.png, val/bee/24.png\)"):
        HeldOut(Folder(str(folder)), SIZE, only=["24.png"])


SAY = """
from trainers.data.folder import Folder
from trainers.data.held_out import HeldOut
from trainers.data.photographic import Photographic
for transform in (None, Photographic(crop_pct=0.8)):
    exam = HeldOut(Folder({path!r}), (3, 10, 10), transform)
    print(exam.digest, exam.chosen)
"""


def test_digest_and_chosen_are_the_same_in_another_process(folder):
    said = subprocess.run(
        [sys.executable, "-c", SAY.format(path=str(folder))], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = [HeldOut(Folder(str(folder)), SIZE, transform) for transform in (None, CENTRE)]
    assert said == [part for exam in ours for part in (exam.digest, exam.chosen)]
    again = pickle.loads(pickle.dumps(ours[1]))
    assert (again.digest, again.chosen) == (ours[1].digest, ours[1].chosen)
    assert again.batch(torch.arange(6)).x.equal(ours[1].batch(torch.arange(6)).x)


def test_a_digest_changes_with_what_lies_in_the_split_and_how_it_is_scaled(folder, make):
    def digest(size=SIZE, transform=None, **settings) -> str:
        return HeldOut(Folder(str(folder)), size, transform, **settings).digest

    first = digest()
    assert first == digest(limit=2) == digest(only=["24.png"]) == digest(split_seed=1) == digest(on_corrupt="skip")
    others = [digest((3, 8, 10)), digest((1, 10, 10)), digest(transform=CENTRE), digest(transform=Photographic())]
    others.append(digest(test=6))
    path = folder / "val/ant/24.png"
    content = path.read_bytes()
    path.write_bytes(make.picture(1000))
    others.append(digest())
    path.rename(folder / "val/ant/24b.png")
    others.append(digest())
    (folder / "val/ant/24b.png").unlink()
    others.append(digest())
    assert len({first, *others}) == 1 + len(others)
    path.write_bytes(content)
    assert digest() == first
    (folder / "train/ant/0.png").write_bytes(make.picture(1001))
    assert digest() == first


def test_other_class_names_are_another_set(parquet):
    one, other = (HeldOut(Parquet(str(parquet), class_names=names)).digest for names in ("abc", "abd"))
    assert one != other


def test_chosen_changes_with_the_examples_alone(folder):
    def chosen(size=SIZE, **settings) -> str:
        return HeldOut(Folder(str(folder)), size, **settings).chosen

    assert chosen() == chosen((3, 8, 8)) == chosen(limit=6) == chosen(limit=7)
    others = [chosen(limit=3), chosen(only=["24.png"]), chosen(test=6), chosen(test=6, split_seed=1)]
    assert len({chosen(), *others}) == 5


@pytest.fixture
def damaged(parquet, make):
    """Nine to test, of which the second is cut short."""
    contents = [make.picture(seed) for seed in range(90, 99)]
    contents[1] = contents[1][:70]
    make.parquet(parquet / "test-00000-of-00001.parquet", contents, [0, 1, 2] * 3)
    return Parquet(str(parquet))


NAME = "test-00000-of-00001.parquet row 1"


def test_an_error_names_the_corrupt_image_and_the_remedy(damaged):
    exam = HeldOut(damaged)
    assert exam.batch(torch.tensor([0, 2])).keys.equal(exam.ids[[0, 2]])
    with pytest.raises(ValueError, match=rf"image {NAME} cannot be decoded .* data.on_corrupt=skip to count it as"):
        exam.batch(torch.arange(3))


class _Bias(nn.Module):
    """Every image is class ``k``."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.eye(3)[k])

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def test_a_corrupt_image_that_is_skipped_stays_black_named_and_wrong(damaged):
    exam = HeldOut(damaged, on_corrupt="skip")
    assert (len(exam), exam.corrupt) == (9, {})
    x, y, _ = whole(exam)
    assert y.tolist() == [0, 1, 2] * 3
    assert (x.flatten(1).amax(1) == 0).tolist() == [False, True] + [False] * 7
    assert exam.corrupt == {int(exam.ids[1]): NAME}
    verdicts = evaluate(Cascade([FGSM(Linf(0.1))]), _Bias(1), HeldOut(damaged, on_corrupt="skip"), 3)
    assert [row for row, by in enumerate(verdicts.by) if by == ""] == [4, 7]
    assert verdicts.by[1] == "clean"
    assert verdicts.clean_accuracy == verdicts.robust_accuracy == 2 / 9


def test_a_corrupt_image_first_gives_no_size(damaged, make):
    path = Path(damaged.path) / "test-00000-of-00001.parquet"
    make.parquet(path, [make.picture(90)[:60], make.picture(91, side=9)], [0, 1])
    assert HeldOut(Parquet(damaged.path), on_corrupt="skip").input_size == (3, 9, 9)
    make.parquet(path, [b""] * 3, [0, 1, 2])
    with pytest.raises(ValueError, match=r"none of the first images can be decoded: data.source"):
        HeldOut(Parquet(damaged.path), on_corrupt="skip")


def test_images_of_different_sizes_are_refused_with_the_remedy(folder):
    exam = HeldOut(Folder(str(folder)))
    with pytest.raises(
        ValueError, match=r"image val/.*png is (\d+)x\1, others are .*set data.input_size=\[3,\d+,\d+\]"
    ):
        whole(exam)
    assert whole(HeldOut(Folder(str(folder)), exam.input_size))[0].shape == (6, *exam.input_size)


@pytest.mark.parametrize("size", [(3, 10, 10), (3, 9, 14), (1, 16, 16)])
def test_scaled_pixels_are_those_of_a_resident_set(folder, size):
    trained = Resident(Folder(str(folder)), 4, input_size=size)
    for ours, theirs in zip(whole(HeldOut(Folder(str(folder)), size)), gathered(trained.held_out("test")), strict=True):
        assert ours.equal(theirs)


@pytest.mark.parametrize("transform", [CENTRE, Photographic(interpolation="bilinear")], ids=["0.8", "bilinear"])
def test_transformed_pixels_are_those_of_a_streamed_set(folder, transform):
    trained = Streaming(Folder(str(folder)), 4, SIZE, transform=transform, loaders=0)
    exam = HeldOut(Folder(str(folder)), SIZE, transform)
    for ours, theirs in zip(whole(exam), gathered(trained.held_out("test")), strict=True):
        assert ours.equal(theirs)
    assert not whole(HeldOut(Folder(str(folder)), SIZE))[0].equal(whole(exam)[0])


def test_grey_images_have_one_channel(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for split, image in (("train", levels), ("test", levels.T)):
        (tmp_path / split / "ant").mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / split / "ant" / "1.png")
    exam = HeldOut(Folder(str(tmp_path)))
    assert exam.input_size == (1, 16, 16)
    assert whole(exam)[0][0, 0].equal(torch.from_numpy(levels.T.copy()).float() / 255)
    assert whole(HeldOut(Folder(str(tmp_path)), (3, 16, 16)))[0].equal(whole(exam)[0].expand(-1, 3, -1, -1))


def test_any_rows_in_any_order(parquet):
    exam = HeldOut(Parquet(str(parquet)))
    x, y, keys = whole(exam)
    rows = torch.tensor([7, 0, 7, 3])
    some = exam.batch(rows)
    assert some.x.equal(x[rows])
    assert some.y.equal(y[rows])
    assert some.keys.equal(keys[rows])
    assert [exam.name(row) for row in (0, 8)] == [f"test-00000-of-00001.parquet row {row}" for row in (0, 8)]


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (_Only([3, 5, 3], [0, 1, 0]), {}, "two examples have the same id"),
        (_Only([3, 5], [0, 2]), {}, r"label 2 of no 1 is outside 0 ... 1 \(1 of 2 in split 'test'\)"),
        (_Only([3, 5], [0, 1]), {"limit": 0}, "no examples to judge on"),
        (_Only([3, 5], [0, 1]), {"on_corrupt": "skp"}, "data.on_corrupt='skp' must be one of error, skip"),
        (_Only([3, 5], [0, 1]), {"input_size": [2, 4, 4]}, r"data.input_size=\[2, 4, 4\] must be"),
    ],
)
def test_what_cannot_be_judged_on_is_refused(source, settings, message):
    with pytest.raises(ValueError, match=message):
        HeldOut(source, **settings)

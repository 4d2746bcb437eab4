"""Boxes and scores: a perfect map is perfect, overlaps by hand, and no threshold judges the images that chose it."""

import builtins
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from trainers.data.pasted_digits import PastedDigits
from trainers.evaluation.intervals import wilson
from trainers.evaluation.localisation import (
    GradientMap,
    Localisation,
    Threshold,
    find_boxes,
    iou,
    max_box_accuracy,
    swept,
)
from trainers.evaluation.localisation.scores import Share
from trainers.evaluation.localisation.thresholds import max_box_accuracy_v2
from trainers.types import Batch


def box(*sides):
    return torch.tensor([sides], dtype=torch.float64)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 1.0),
        ((0, 0, 4, 4), (1, 1, 3, 3), 1 / 4),
        ((0, 0, 4, 4), (2, 2, 6, 6), 1 / 7),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0.0),  # they touch along a side
        ((0, 0, 2, 2), (2, 2, 4, 4), 0.0),  # at a corner
        ((0, 0, 2, 2), (5, 0, 7, 2), 0.0),  # apart one way
        ((0, 0, 4, 4), (5, 5, 9, 9), 0.0),  # apart both ways: the product of two negative sides is positive
        ((0, 0, 0, 0), (0, 0, 4, 4), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_iou_by_hand_both_ways(a, b, expected):
    assert iou(box(*a), box(*b)).item() == pytest.approx(expected)
    assert iou(box(*b), box(*a)).item() == pytest.approx(expected)


def test_iou_of_every_pair():
    boxes = torch.tensor([[0, 0, 2, 2], [0, 0, 4, 4], [9, 9, 10, 10.5]])
    found = iou(boxes, boxes[:2])
    torch.testing.assert_close(found, torch.tensor([[1, 0.25], [0.25, 1], [0, 0]], dtype=torch.float64))


def test_the_largest_part_counts_and_corners_connect():
    maps = torch.zeros(1, 8, 9)
    maps[0, 0:2, 0:3] = 1  # 6 pixels
    for k in range(7):
        maps[0, k + 1, 8 - k] = 0.9  # 7 along a diagonal that touches nothing else
    maps[0, 1, 2] = maps[0, 7, 2] = 1
    maps[0, 6, 3] = 0.9
    assert find_boxes(maps, 0.2).tolist() == [[2, 1, 9, 8]]
    assert find_boxes(maps, 0.95).tolist() == [[0, 0, 3, 2]]


def test_the_threshold_is_a_share_of_the_largest_value_and_lies_outside():
    maps = torch.tensor([[[0.0, 0.1, 0.2, 0.4, 0.5]]])
    assert find_boxes(maps, 0.0).tolist() == [[1, 0, 5, 1]]
    assert find_boxes(maps, 0.4).tolist() == [[3, 0, 5, 1]]
    assert torch.equal(find_boxes(maps / 7, 0.5), find_boxes(maps, 0.5))


def test_an_empty_map_has_no_box_and_misses():
    maps = torch.stack([torch.zeros(4, 4), torch.full((4, 4), torch.nan)])
    boxes = find_boxes(maps, 0.0)
    assert boxes.tolist() == [[0, 0, 0, 0]] * 2
    assert iou(boxes, box(0, 0, 4, 4)).max() == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 20])
def test_thresholds_that_are_no_share(threshold):
    with pytest.raises(ValueError, match=rf"threshold={threshold:g} is a share.*\[0, 1\)"):
        find_boxes(torch.ones(1, 2, 2), threshold)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Threshold(threshold)


def test_scipy_is_asked_for_by_name(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install scipy"):
        find_boxes(torch.ones(1, 2, 2), 0.5)


@dataclass(frozen=True)
class Drawn:
    """The image itself is the map."""

    name = "drawn"

    def __call__(self, model, x, y=None):
        return x[:, 0]


class Constant(nn.Module):
    """Always class 0."""

    def forward(self, x):
        return torch.tensor([1.0, 0.0]).repeat(len(x), 1) + 0 * x.flatten(1)[:, :2]


BOXES = [[1, 2, 5, 6], [0, 0, 3, 8], [4, 4, 8, 8], [2, 0, 8, 2]]


def indicators(boxes=BOXES):
    """Maps that are 1 inside their box; ids 10, 11 ...; classes 0, 1, 0, 1."""
    x = torch.zeros(len(boxes), 1, 8, 8)
    for image, (left, top, right, bottom) in zip(x, boxes, strict=True):
        image[0, top:bottom, left:right] = 1
    n = len(boxes)
    return Batch(x, torch.arange(n) % 2, torch.arange(n) + 10)


def truths(boxes=BOXES):
    return {10 + i: box(*sides) for i, sides in enumerate(boxes)}


def test_a_perfect_map_is_perfect():
    found = dict(Localisation(Drawn(), truths())(Constant(), [indicators()]))
    assert found == {
        "gt_known_localisation": 1.0,
        "top1_localisation": 0.5,
        "top1_accuracy": 0.5,
        "max_box_accuracy": 1.0,
        "max_box_accuracy_v2": 1.0,
    }
    overlaps = Localisation(Drawn(), truths()).overlaps(Constant(), [indicators()], "test")
    assert torch.equal(overlaps.iou, torch.ones_like(overlaps.iou))


def test_a_perfect_map_of_pasted_digits_is_perfect():
    examples = PastedDigits(clutter=0, pieces=0).split("test")
    rows = range(0, 540, 60)
    boxes = [[int(side) for side in examples.boxes[int(examples.ids[i])][0]] for i in rows]
    x = torch.zeros(len(boxes), 1, 32, 32)
    for image, (left, top, right, bottom) in zip(x, boxes, strict=True):
        image[0, top:bottom, left:right] = 1
    batch = Batch(x, examples.labels[list(rows)], examples.ids[list(rows)])
    assert dict(Localisation(Drawn(), examples.boxes)(Constant(), [batch]))["gt_known_localisation"] == 1


def test_batches_do_not_matter_and_the_best_of_several_boxes_counts():
    batch = indicators()
    parts = [Batch(*(part[i : i + 1] for part in batch)) for i in range(4)]
    several = {key: torch.cat([box(0, 0, 1, 1), own]) for key, own in truths().items()}
    assert dict(Localisation(Drawn(), several)(Constant(), parts)) == dict(
        Localisation(Drawn(), truths())(Constant(), [batch])
    )


def test_an_image_whose_boxes_were_cropped_away_is_missed():
    boxes = truths() | {10: torch.zeros(0, 4)}
    assert dict(Localisation(Drawn(), boxes)(Constant(), [indicators()]))["gt_known_localisation"] == 0.75


def test_localisation_needs_half_of_the_union():
    """Boxes of 4x4 against 4x2 (IoU exactly 0.5) and 4x1 (0.25)."""
    batch = indicators([[0, 0, 4, 2], [0, 0, 4, 1]])
    boxes = {10: box(0, 0, 4, 4), 11: box(0, 0, 4, 4)}
    found = dict(Localisation(Drawn(), boxes)(Constant(), [batch]))
    assert found["gt_known_localisation"] == 0.5
    assert found["top1_localisation"] == 0.5
    assert found["max_box_accuracy_v2"] == pytest.approx((0.5 + 0.5 + 0) / 3)


def blurred():
    """Inside its box a map is 1, around it, on the whole image, ``0.5``: only thresholds from 0.5 on find the box."""
    batch = indicators()
    return batch._replace(x=batch.x.clamp_min(0.5))


def test_a_swept_threshold_is_the_best_of_a_held_out_split_and_then_judges_another():
    overlaps = Localisation(Drawn(), truths()).overlaps(Constant(), [blurred()], "validation")
    chosen = swept(overlaps)
    assert chosen.value == 0.5
    assert max_box_accuracy(overlaps) == 1.0
    elsewhere = blurred()._replace(keys=torch.arange(4))
    boxes = {key - 10: own for key, own in truths().items()}
    assert dict(Localisation(Drawn(), boxes)(Constant(), [elsewhere]))["gt_known_localisation"] < 1
    found = dict(Localisation(Drawn(), boxes, threshold=chosen)(Constant(), [elsewhere]))
    assert found["gt_known_localisation"] == 1


def test_a_threshold_swept_on_test_data_is_refused():
    scores = Localisation(Drawn(), truths())
    with pytest.raises(ValueError, match=r"split=test: refused, a threshold swept on test data.*split=validation"):
        swept(scores.overlaps(Constant(), [blurred()], "test"))
    chosen = swept(scores.overlaps(Constant(), [blurred()], "validation"))
    mixed = blurred()._replace(keys=torch.tensor([3, 4, 5, 12]))
    boxes = truths() | {k: box(0, 0, 1, 1) for k in (3, 4, 5)}
    with pytest.raises(ValueError, match=r"threshold swept on test data: 1 of these examples chose it \(id 12\)"):
        dict(Localisation(Drawn(), boxes, threshold=chosen)(Constant(), [mixed]))


def test_shares_bring_wilson_s_interval():
    overlaps = Localisation(Drawn(), truths()).overlaps(Constant(), [indicators()], "test")
    shares = dict(Localisation(Drawn(), truths()).shares(overlaps))
    assert shares["top1_localisation"] == Share(2, 4)
    assert shares["top1_localisation"].interval == wilson(2, 4)


def test_a_maximum_over_thresholds_is_never_below_any_of_them():
    batch = indicators()._replace(x=torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) ** 3)
    overlaps = Localisation(Drawn(), truths()).overlaps(Constant(), [batch], "test")
    for min_iou in (0.1, 0.3, 0.5):
        accuracies = (overlaps.iou >= min_iou).double().mean(0)
        assert max_box_accuracy(overlaps, min_iou) == accuracies.max()
    expected = sum(max_box_accuracy(overlaps, d) for d in (0.3, 0.5, 0.7)) / 3
    assert max_box_accuracy_v2(overlaps) == pytest.approx(expected)


@dataclass(frozen=True)
class OfClassZero:
    """A perfect map of class 0, none of another."""

    name = "of_class_zero"

    def __call__(self, model, x, y=None):
        classes = model(x).argmax(1) if y is None else y
        return x[:, 0] * (classes == 0)[:, None, None]


def test_the_predicted_class_s_map_changes_gt_known_and_not_top1():
    given, predicted = (
        dict(Localisation(OfClassZero(), truths(), of=of)(Constant(), [indicators()])) for of in ("given", "predicted")
    )
    assert (given["gt_known_localisation"], predicted["gt_known_localisation"]) == (0.5, 1.0)
    assert given["top1_localisation"] == predicted["top1_localisation"] == 0.5


def test_a_real_network_s_gradient_is_scored_and_it_is_left_in_its_mode(small_net, images, labels, keys):
    model = small_net(dropout=0.5).train()
    boxes = {int(key): box(0, 0, 6, 6) for key in keys}
    scores = Localisation(GradientMap(sigma=0.5), boxes)
    first = dict(scores(model, [Batch(images, labels, keys)]))
    assert dict(scores(model, [Batch(images, labels, keys)])) == first
    assert all(module.training for module in model.modules())
    accuracy = (model.eval()(images).argmax(1) == labels).double().mean().item()
    assert first["top1_accuracy"] == pytest.approx(accuracy)
    assert first["top1_localisation"] <= min(first["gt_known_localisation"], first["top1_accuracy"])
    assert first["gt_known_localisation"] <= first["max_box_accuracy"]


def test_refusals():
    with pytest.raises(ValueError, match="of='best' must be the 'given' or the 'predicted' class"):
        Localisation(Drawn(), {}, of="best")
    with pytest.raises(ValueError, match="thresholds is empty"):
        Localisation(Drawn(), {}, thresholds=())
    with pytest.raises(ValueError, match="none for the image of id 10: annotate it"):
        dict(Localisation(Drawn(), {})(Constant(), [indicators()]))
    with pytest.raises(ValueError, match="no examples to localise"):
        dict(Localisation(Drawn(), {})(Constant(), []))
    empty = Localisation(Drawn(), {}).overlaps(Constant(), [], "validation")
    with pytest.raises(ValueError, match="no examples to choose a threshold on"):
        swept(empty)
    overlaps = Localisation(Drawn(), truths()).overlaps(Constant(), [indicators()], "test")
    with pytest.raises(ValueError, match=r"min_iou=0 must be in \(0, 1\]"):
        max_box_accuracy(overlaps, 0)
    with pytest.raises(ValueError, match=r"threshold=0.33 was not looked at"):
        overlaps.at(0.33)

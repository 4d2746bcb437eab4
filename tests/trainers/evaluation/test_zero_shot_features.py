"""Features are what the classifier is given; a task made of them tells seen classes from unseen ones."""

import pytest
import torch
from torch import nn

from trainers import distributed
from trainers.data.attribute_world import AttributeWorld
from trainers.data.held_out import HeldOut
from trainers.evaluation.zero_shot import ESZSL, ZeroShot
from trainers.evaluation.zero_shot.features import features, on_backbone
from trainers.models import create
from trainers.types import Batch

WORLD = AttributeWorld(train=8, test=4)


def batches(split: str) -> list[Batch]:
    """Of the made world, through the readers that training and judging use."""
    if split == "train":
        examples = WORLD.split("train")
        x = torch.stack([_pixels(examples, i) for i in range(len(examples))])
        return [Batch(*part) for part in zip(*(t.split(100) for t in (x, examples.labels, examples.ids)), strict=True)]
    exam = HeldOut(WORLD.beyond if split == "unseen" else WORLD)
    return [exam.batch(rows) for rows in torch.arange(len(exam)).split(50)]


def _pixels(examples, i) -> torch.Tensor:
    return torch.tensor(list(examples.image(i).tobytes())).reshape(16, 16, 3).permute(2, 0, 1) / 255


@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [("holdfast_resnet", {"width": 8, "blocks": 1}, "fc"), ("resnet18", {}, "fc"), ("convnext_atto", {}, "head.fc")],
)
def test_features_are_what_the_classifier_turns_into_logits(name, arguments, last):
    size = (3, 16, 16) if name == "holdfast_resnet" else (3, 32, 32)
    model = create(name, 7, size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), arguments=arguments)
    model.train()
    x, keys = torch.rand(5, *size), torch.tensor([9, 4, 7, 1, 3])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    got_keys, table = features(model, [Batch(x[:2], keys[:2], keys[:2]), Batch(x[2:], keys[2:], keys[2:])])
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(got_keys, keys)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model.network.get_submodule(last)(table), model(x), rtol=1e-4, atol=1e-5)


def test_a_network_whose_features_cannot_be_had_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    batch = Batch(torch.rand(2, 3, 2, 2), torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"Sequential has no forward_head.*take a timm network"):
        features(model, [batch])


def test_features_that_are_not_finite_are_refused():
    model = create("holdfast_resnet", 3, (1, 8, 8), arguments={"width": 4, "blocks": 1})
    model.network.conv1.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="features are not finite"):
        features(model, [Batch(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), torch.tensor([0, 1]))])


@pytest.fixture
def net() -> nn.Module:
    return create("holdfast_resnet", 48, (3, 16, 16), arguments={"width": 24, "blocks": 2})


def test_the_task_on_a_backbone_holds_every_image_once(net):
    judged = [*batches("test"), *batches("unseen")]
    task = on_backbone(net, batches("train"), judged[::-1], WORLD.attributes, WORLD.all_classes)
    assert torch.equal(task.seen, WORLD.seen)
    assert torch.equal(task.unseen, WORLD.unseen)
    sizes = [len(rows) for rows in (task.trainval_loc, task.test_seen_loc, task.test_unseen_loc)]
    assert sizes == [48 * 8, 48 * 4, 16 * 4]
    assert task.features.shape == (48 * 12 + 16 * 4, 24)
    keys, table = features(net, batches("unseen"))
    found = {tuple(row) for row in task.features[task.test_unseen_loc].tolist()}
    assert len(keys) == len(found) == 64
    torch.testing.assert_close(
        task.features[task.test_unseen_loc].sum(0), table.sum(0), rtol=1e-4, atol=1e-4
    )  # batches of other sizes


def test_even_random_features_tell_unseen_classes_apart_above_chance(net):
    probe = ZeroShot(batches("train"), WORLD.attributes, WORLD.all_classes, (ESZSL(0.1, 1.0), ESZSL(1.0, 1.0)))
    found = dict(probe(net, [*batches("test"), *batches("unseen")]))
    assert found["zero_shot_chance"] == 1 / 16
    assert found["zero_shot_t1_low"] > 2 / 16
    assert found["zero_shot_unseen"] <= found["zero_shot_t1"]
    assert found == dict(probe(net, [*batches("test"), *batches("unseen")]))


def test_attributes_dealt_out_wrongly_earn_nothing(net):
    """However the 16 rows of the unseen are rolled, a picture is given the same row, which is its own in one roll of
    16: the accuracies sum to 1, so that nothing but the attributes tells unseen classes apart."""
    learn, judged = batches("train"), [*batches("test"), *batches("unseen")]
    rolled, rates = WORLD.attributes.clone(), []
    for shift in range(16):
        rolled[WORLD.unseen] = WORLD.attributes[WORLD.unseen].roll(shift, 0)
        probe = ZeroShot(learn, rolled, WORLD.all_classes, (ESZSL(0.1, 1.0),))
        rates.append(dict(probe(net, judged))["zero_shot_t1"])
    assert sum(rates) == pytest.approx(1)
    assert max(rates) == rates[0]


def test_what_is_learnt_from_is_not_judged_on(net):
    learn = batches("train")
    with pytest.raises(ValueError, match=r"100 examples, such as .* are learnt from and judged on"):
        on_backbone(net, learn, learn[:1], WORLD.attributes, WORLD.all_classes)
    with pytest.raises(ValueError, match="a split is empty"):
        on_backbone(net, learn, [], WORLD.attributes, WORLD.all_classes)
    with pytest.raises(ValueError, match="test_unseen_loc is empty"):
        on_backbone(net, learn, batches("test"), WORLD.attributes, WORLD.all_classes)


def test_ranks_that_hold_a_share_each_are_refused(net, monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(ValueError, match="2 ranks hold a share each"):
        on_backbone(net, [], [], WORLD.attributes, WORLD.all_classes)

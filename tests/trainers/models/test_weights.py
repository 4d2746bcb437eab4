"""Initial weights from files: every tensor accounted for."""

import io

import pytest
import safetensors.torch
import timm
import torch

from trainers import models
from trainers.models import weights

TINY = {"name": "holdfast_resnet", "num_classes": 4, "input_size": (1, 8, 8), "arguments": {"width": 8}}


class Bucket:
    """Remote files by their whole path."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def open(self, path: str) -> io.BytesIO:
        return io.BytesIO(self.files[path])


def same(a, b, but=()):
    b = dict(b.items())
    return all(torch.equal(t, b[name]) for name, t in a.items() if not name.startswith(but or "-"))


def file_of(network, path):
    safetensors.torch.save_file(network.state_dict(), path)
    return str(path)


def test_a_file_in_timms_own_layout_fills_the_network(tmp_path):
    source = timm.create_model("resnet18", num_classes=4)
    model = models.create("resnet18", 4, (3, 64, 64), weights=file_of(source, tmp_path / "w.safetensors"))
    assert same(model.network.state_dict(), source.state_dict())


def test_what_a_wrapper_put_before_every_name_is_taken_off(tmp_path):
    source = models.create(**TINY, seed=5).network
    path = file_of(torch.nn.DataParallel(source), tmp_path / "w.safetensors")
    assert same(models.create(**TINY, weights=path).network.state_dict(), source.state_dict())


def test_a_head_for_another_number_of_classes_stays_random_and_fixed_by_the_seed(tmp_path):
    path = file_of(timm.create_model("resnet18", num_classes=7), tmp_path / "w.safetensors")
    source = safetensors.torch.load_file(path)
    first, second = (models.create("resnet18", 4, (3, 64, 64), weights=path, seed=1) for _ in range(2))
    assert same(first.network.state_dict(), source, but="fc.")
    assert torch.equal(first.network.fc.weight, second.network.fc.weight)
    network = timm.create_model("resnet18", num_classes=4)
    assert sorted(weights.fill(network, source, path)) == ["fc.bias", "fc.weight"]


def test_a_saved_model_starts_another_with_new_classes_and_normalisation(tmp_path):
    source = models.create(**TINY, mean=(0.1,), std=(0.2,), seed=5)
    models.save(source, tmp_path)
    model = models.create(**TINY | {"num_classes": 9}, mean=(0.5,), weights=str(tmp_path))
    assert same(model.network.state_dict(), source.network.state_dict(), but="fc.")
    assert model.normalize.mean.item() == 0.5


def test_a_learned_activation_starts_where_it_was_or_fresh_after_a_swap(tmp_path):
    relu, learned = models.create(**TINY), models.create(**TINY, activation="smooth_relu")
    with torch.no_grad():
        learned.network.act1.raw.fill_(3)
    models.save(relu, tmp_path / "relu")
    models.save(learned, tmp_path / "learned")
    swapped = models.create(**TINY, activation="smooth_relu", weights=str(tmp_path / "relu"))
    assert swapped.network.act1.raw.item() == 20
    assert torch.equal(swapped.network.conv1.weight, relu.network.conv1.weight)
    again = models.create(**TINY, activation="smooth_relu", weights=str(tmp_path / "learned"))
    assert again.network.act1.raw.item() == 3
    with pytest.raises(ValueError, match=r"act1\.raw is unexpected"):
        models.create(**TINY, weights=str(tmp_path / "learned"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bn1.weight"), r"bn1\.weight is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is unexpected"),
        (
            lambda t: t.update({"conv1.weight": torch.zeros(8, 1, 5, 5)}),
            r"conv1\.weight is \(8, 1, 5, 5\) and should be",
        ),
        (lambda t: t.update({"fc.weight": torch.zeros(4, 9)}), r"fc\.weight is \(4, 9\) and should be \(4, 8\)"),
    ],
)
def test_any_other_mismatch_names_the_tensors(tmp_path, change, message):
    tensors = models.create(**TINY).network.state_dict()
    change(tensors)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(ValueError, match=rf"model\.weights='.*' does not fit model\.name: .*{message}"):
        models.create(**TINY, weights=str(path))


def test_position_tables_of_another_size_are_resampled_by_timms_rule(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=4, depth=1, img_size=64)
    path = file_of(source, tmp_path / "w.safetensors")
    model = models.create("vit_tiny_patch16_224", 4, (3, 96, 96), arguments={"depth": 1}, weights=path)
    assert model.network.pos_embed.shape[1] == 37
    assert torch.equal(model.network.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("path", ["s3://bucket/model", "s3://bucket/model/", "s3://bucket/model/weights.safetensors"])
def test_remote_weights_are_opened_by_files(path):
    source = models.create(**TINY, seed=5)
    bucket = Bucket({"s3://bucket/model/weights.safetensors": safetensors.torch.save(source.state_dict())})
    model = models.create(**TINY, weights=path, files=bucket)
    assert same(model.state_dict(), source.state_dict())
    with pytest.raises(ValueError, match="is remote: pass `files`"):
        models.create(**TINY, weights=path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model\.weights='old\.pth' is a pickle, .*convert it once"):
        models.create(**TINY, weights="old.pth")
    with pytest.raises(ValueError, match=r"there is no .*gone\.safetensors; give a \.safetensors file"):
        models.create(**TINY, weights=str(tmp_path / "gone.safetensors"))
    path = file_of(models.create(**TINY).network, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"is truncated or not safetensors"):
        models.create(**TINY, weights=path)

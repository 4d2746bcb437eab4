"""Networks from anything a user has, each source for real; and what cannot be judged, with its message."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from pipelines import sources, storage
from pipelines.errors import Misuse
from pipelines.tracking import registry, runs, server
from trainers import models

SIZE = (1, 8, 8)
TINY = {"name": "holdfast_resnet", "arguments": {"width": 4, "blocks": 1}}
NOWHERE = "sqlite:////nowhere/mlflow.db"

MODULE = """
import torch
from torch import nn

def fixed(out=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, out))

def drawn():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

class Lazy(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Flatten(), nn.LazyLinear(3))

class Made:
    @staticmethod
    def later():
        return fixed()

class Wrong(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer
    def forward(self, x):
        return self.answer(x)

def five(): return fixed(5)
def number(): return 3
def needs(path): return fixed()
def breaks(): raise OSError("no checkpoint\\nat all")
def leaves(): raise SystemExit(2)
def pair(): return Wrong(lambda x: (x.flatten(1)[:, :3], x))
def image(): return Wrong(lambda x: x)
def labels(): return Wrong(lambda x: torch.zeros(len(x), 3, dtype=torch.int64))
def nan(): return Wrong(lambda x: x.flatten(1)[:, :3] / (x.flatten(1).std(1, keepdim=True) > 0))
def raises(): return Wrong(lambda x: x @ torch.zeros(3, 3))
instance = fixed()
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[str]:
    """A module of the user's, in the folder they run in."""
    (tmp_path / "mymodels.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nothing_like_it")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield "mymodels"
    for name in ("mymodels", "broken"):
        sys.modules.pop(name, None)


def load(trust=(), classes=3, size=SIZE, uri=NOWHERE, where="model", **model):
    return sources.load(model, classes, size, uri, trust, where)


def saved(folder: Path, seed: int = 0, **changed) -> models.Classifier:
    model = models.create(num_classes=3, input_size=SIZE, mean=[0.25], std=[0.5], seed=seed, **TINY | changed)
    models.save(model, folder)
    return model.eval()


def same(found: sources.Candidate, model: nn.Module) -> bool:
    x = torch.rand(3, *SIZE)
    return not any(m.training for m in found.model.modules()) and torch.equal(found.model(x), model.eval()(x))


def test_versions_and_runs_come_with_their_facts(tracking_uri, tmp_path):
    tags = {"threat": "Linf 0.1"}
    ids = [runs.open_run(tracking_uri, "sources", key, key, {}, tags=tags) for key in ("named", "nameless")]
    nets = [saved(tmp_path / run_id, seed) for seed, run_id in enumerate(ids)]
    for run_id, net, name in zip(ids, nets, ("digits", None), strict=True):
        registry.register(tracking_uri, run_id, net, tmp_path / run_id, name, {"clean_accuracy": 0.75}, tags, SIZE)
    server.client(tracking_uri).set_registered_model_alias("digits", "best", 1)

    found = [load(uri=tracking_uri, source=s) for s in ("models:/digits/1", "models:/digits@best", f"runs:/{ids[1]}")]
    assert [c.title for c in found] == ["digits/1", "digits/1", "nameless"]
    assert [c.version for c in found] == [("digits", 1), ("digits", 1), None]
    assert [c.run_id for c in found] == [ids[0], ids[0], ids[1]]
    assert [c.notes for c in found] == [(), ("models:/digits@best is version 1 of digits",), ()]
    assert {(c.threat, c.stated_clean_accuracy, c.architecture) for c in found} == {
        (("Linf", 0.1), 0.75, "holdfast_resnet")
    }
    assert [c.digest for c in found] == [sources.digest(net) for net in (nets[0], nets[0], nets[1])]
    assert same(found[0], nets[0])
    assert same(found[2], nets[1])

    with pytest.raises(Misuse, match=r"^beside\.source=models:/digits/2 is not at .*digits has versions 1; correct"):
        load(uri=tracking_uri, source="models:/digits/2", where="beside")
    with pytest.raises(Misuse, match=r"^model\.source=models:/digits/1 gives 3 logits an image, and the data have 10"):
        load(uri=tracking_uri, source="models:/digits/1", classes=10)

    for place in (tmp_path / "artifacts").rglob("model.json"):
        place.unlink()
    with pytest.raises(Misuse, match=r"^model\.source=models:/digits/1 cannot be loaded: .*not registered by holdfast"):
        load(uri=tracking_uri, source="models:/digits/1")


def test_a_saved_folder_is_judged_as_it_was_saved_wherever_it_lies(tmp_path, bucket):
    net = saved(tmp_path / "plain")
    shutil.copytree(tmp_path / "plain", tmp_path / "mlflow" / "extra_files")
    storage.upload(tmp_path / "plain", f"s3://{bucket}/runs/plain")
    storage.upload(tmp_path / "mlflow", f"s3://{bucket}/runs/mlflow")
    for place in (
        f"{tmp_path}/plain",
        f"{tmp_path}/mlflow/",
        f"s3://{bucket}/runs/plain/",
        f"s3://{bucket}/runs/mlflow",
    ):
        found = load(source=place)
        assert same(found, net)
        assert found.title == place.rstrip("/").rpartition("/")[2]
        assert (found.source, found.digest, found.run_id) == (place, sources.digest(net), None)
        assert found.parameters == sum(p.numel() for p in net.parameters())
    # what cannot be loaded
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain" / "model.json").write_text("{")
    for place, reason in (
        (f"{tmp_path}/empty", "it was not registered by holdfast"),
        (f"{tmp_path}/plain", "is truncated or not JSON"),
        (f"s3://{bucket}/none", "there is no model in it"),
        ("s3://no-such-bucket-here/a", "the bucket does not exist"),
    ):
        with pytest.raises(Misuse, match=rf"^model\.source={place} cannot be loaded: .*{reason}.*; give the folder"):
            load(source=place)


def test_a_source_that_is_nothing_says_what_can_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        Misuse, match=r"^model\.source=digits is no folder here and names no model; give models:/NAME/1"
    ):
        load(source="digits")
    with pytest.raises(Misuse, match=r"^model\.source=gs://bucket/model cannot be loaded: .*only folders and s3://"):
        load(source="gs://bucket/model")
    with pytest.raises(Misuse, match=r"there is no such database, so model\.source=models:/digits/1 is not there"):
        load(source="models:/digits/1")
    with pytest.raises(Misuse, match=r"^no model given: set model\.source, or model\.name \(a timm model\) and"):
        load()
    with pytest.raises(
        Misuse, match=r"holds tensors and no network: give model\.name .* model\.weights=w\.safetensors"
    ):
        load(source="w.safetensors", name="resnet18")
    with pytest.raises(Misuse, match=r"brings its own network: remove model\.name, model\.mean, model\.stem"):
        load(source="digits", name="resnet18", mean=[0.0], stem="small", arguments={})
    with pytest.raises(Misuse) as caught:
        load(source="s3://me:hunter22@host")
    assert "hunter22" not in str(caught.value)


def test_a_function_of_the_users_is_called_if_it_is_trusted(package):
    for trust in (True, [package], package):
        found = load(trust, source="mymodels:fixed")
        assert (found.title, found.architecture, found.parameters) == ("mymodels:fixed", "Sequential", 64 * 3 + 3)
        assert (found.run_id, found.version, found.threat, found.stated_clean_accuracy) == (None,) * 4
        assert same(found, found.model)
    assert load(True, source="mymodels:Made.later").digest == found.digest
    assert load(True, source="mymodels:Lazy").parameters == found.parameters
    with pytest.raises(
        Misuse, match=r"^model\.source=mymodels:fixed runs that code\. If you trust it, add trust=\[mymo"
    ):
        load(["other"], source="mymodels:fixed")


def test_code_that_is_not_trusted_is_not_even_imported(package, tmp_path):
    (tmp_path / "mymodels.py").write_text("raise AssertionError")
    with pytest.raises(Misuse, match="runs that code"):
        load(False, source="mymodels:fixed")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mymodels:drawn", "makes other weights at each call, so no number of it could be had again: .*manual_seed"),
        ("mymodels:absent", r"cannot be imported \(AttributeError: .*; correct the name"),
        ("absent:net", r"cannot be imported \(ModuleNotFoundError: No module named 'absent'\)"),
        ("broken:net", r"cannot be imported \(ModuleNotFoundError: No module named 'nothing_like_it'\)"),
        ("mymodels:instance", "is no function but Sequential: name one that returns the nn.Module"),
        ("mymodels:number", "returned no nn.Module but int: let it return the network"),
        ("mymodels:needs", r"failed when it was called without arguments \(TypeError: .*'path'\)"),
        ("mymodels:breaks", r"failed .*\(OSError: no checkpoint\); let it build"),
        ("mymodels:leaves", r"failed .*\(SystemExit: 2\)"),
        ("mymodels:five", "gives 5 logits an image, and the data have 3 classes: give the data it was made for, or"),
        ("mymodels:pair", r"gives no tensor but tuple: let it return its logits \(N, 3\) only"),
        ("mymodels:image", r"gives \(2, 1, 8, 8\) for 2 images, not logits \(2, 3\)"),
        ("mymodels:labels", r"gives torch\.int64, not logits"),
        ("mymodels:nan", "gives NaN or infinite logits for a grey image: its weights or"),
        (
            "mymodels:raises",
            r"cannot take \(1, 8, 8\) images, float32 in \[0, 1\] \(.*\); give it the data it was made",
        ),
    ],
)
def test_a_function_that_gives_no_network_to_judge_is_refused(package, source, message):
    with pytest.raises(Misuse, match=rf"^model\.source={source} {message}") as caught:
        load(True, source=source)
    assert "\n" not in str(caught.value)


def test_an_exported_graph_is_refused(package):
    program = torch.export.export(models.create(num_classes=3, input_size=SIZE, **TINY).eval(), (torch.rand(2, *SIZE),))
    import mymodels

    mymodels.graph = program.module
    with pytest.raises(Misuse, match=r"cannot be put on the CPU in eval mode .*not an exported graph"):
        load(True, source="mymodels:graph")


def test_a_whole_pickled_network_needs_trust(package, tmp_path, bucket):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    torch.save(net, tmp_path / "net.pth")
    torch.save(net.state_dict(), tmp_path / "state.pth")
    storage.upload(tmp_path, f"s3://{bucket}/nets")
    for place in (str(tmp_path / "net.pth"), f"s3://{bucket}/nets/net.pth"):
        with pytest.raises(
            Misuse, match=r"is a pickle, and .*: if you trust it, add trust=true; for a state dict, give"
        ):
            load(["mymodels"], source=place)
        found = load(True, source=place)
        assert same(found, net)
        assert (found.title, found.architecture) == ("net.pth", "Sequential")
    with pytest.raises(Misuse, match=r"holds no nn\.Module but OrderedDict; .*model\.weights=.*state\.pth"):
        load(True, source=str(tmp_path / "state.pth"))
    with pytest.raises(Misuse, match=r"^beside\.source='.*gone\.pt': there is no such file"):
        load(True, source=str(tmp_path / "gone.pt"), where="beside")


def checkpoint(path: Path, classes: int = 3) -> nn.Module:
    net = timm.create_model("resnet10t", num_classes=classes)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(net.state_dict(), path)
    else:
        torch.save({"epoch": 3, "state_dict": nn.DataParallel(net).state_dict()}, path)
    return net.eval()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_timm_checkpoint_brings_every_weight_and_timms_normalisation(tmp_path, name):
    path, size = tmp_path / name, (3, 64, 64)
    net = checkpoint(path)
    found = load(name="resnet10t", weights=str(path), size=size)
    x = torch.rand(2, *size)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (net.pretrained_cfg["mean"], net.pretrained_cfg["std"]))
    assert torch.equal(found.model(x), net((x - mean) / std))
    assert (found.title, found.architecture, found.source) == ("resnet10t", "resnet10t", f"resnet10t with {path}")
    assert found.notes[-1].startswith("normalised by mean [0.485, 0.456, 0.406] std [0.229, 0.224, 0.225], timm's for")
    if name == "w.pth":
        assert found.notes[0] == f"model.weights={path}: its 'state_dict' was taken"
    plain = load(name="resnet10t", weights=str(path), size=size, mean=[0, 0, 0], std=[1, 1, 1])
    assert torch.equal(plain.model(x), net(x))
    assert plain.digest != found.digest
    with pytest.raises(
        Misuse, match=r"^model\.weights=.* is for 3 classes \(fc\..*\), and the data have 4: give the da"
    ):
        load(name="resnet10t", weights=str(path), size=size, classes=4)


def test_saved_weights_by_name_keep_their_own_normalisation(tmp_path, bucket):
    net = saved(tmp_path / "net", activation="gelu")
    storage.upload(tmp_path / "net", f"s3://{bucket}/net")
    for place in (f"{tmp_path}/net", f"{tmp_path}/net/weights.safetensors", f"s3://{bucket}/net"):
        found = load(weights=place, activation="gelu", **TINY)
        assert same(found, net)
        assert "mean [0.25] std [0.5], the saved model's own" in found.notes[0]
        with pytest.raises(
            Misuse, match=r"^model\.activation=None is not that of the saved model .*: set model\.source="
        ):
            load(weights=place, **TINY)
    bare = tmp_path / "bare.safetensors"
    safetensors.torch.save_file(net.network.state_dict(), bare)
    assert "mean [0] std [1], pixels as they are" in load(weights=str(bare), activation="gelu", **TINY).notes[0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "resnet18"},
            r"^beside\.weights is not set, and beside\.name=resnet18 with random weights judges nothing",
        ),
        ({**TINY, "weights": "gone.safetensors"}, r"^beside\.weights='gone\.safetensors': there is no"),
        ({**TINY, "weights": "gone.pth"}, r"^beside\.weights='gone\.pth': there is no such file"),
        (
            {**TINY, "weights": "code.pth"},
            r"^beside\.weights='code\.pth' is a pickle that needs .*add trust=true, or conv",
        ),
        (
            {**TINY, "weights": "w.safetensors", "name": "holdfast_resnt"},
            r"^beside\.name='holdfast_resnt' is not a timm",
        ),
        (
            {**TINY, "weights": "w.safetensors", "arguments": {}},
            r"does not fit beside\.name: .*same beside\.name, beside",
        ),
        ({**TINY, "weights": "w.safetensors", "activation": "geluu"}, r"^beside\.activation='geluu' is unknown"),
        (
            {**TINY, "weights": "w.safetensors", "mean": [0.1]},
            r"^beside\.mean=\[0\.1\] and beside\.std=None: give both",
        ),
        ({**TINY, "weights": "w.safetensors", "mean": [0, 0], "std": [1, 1]}, r"^beside\.mean=.* must have 1 values"),
        (
            {"name": "resnet18", "weights": "timm"},
            r"^beside\.weights=timm: resnet18 was published for 1000 classes, and",
        ),
        ({"name": "resnet18x", "weights": "timm"}, r"^beside\.name='resnet18x' is not a timm model; nearest"),
        (
            {**TINY, "weights": "timm"},
            r"^beside\.weights=timm: timm has none for beside\.name=holdfast_resnet; give a f",
        ),
        (
            {**TINY, "weights": "nan.safetensors"},
            r"^beside\.name=holdfast_resnet with beside\.weights=nan\..* gives NaN",
        ),
    ],
)
def test_a_name_and_weights_that_do_not_make_a_network_are_refused(tmp_path, monkeypatch, model, message):
    monkeypatch.chdir(tmp_path)
    net = models.create(num_classes=3, input_size=SIZE, **TINY).network
    torch.save({"state_dict": net.state_dict(), "code": nn.Identity()}, "code.pth")
    safetensors.torch.save_file(net.state_dict(), "w.safetensors")
    broken = {name: t * torch.nan if t.is_floating_point() else t for name, t in net.state_dict().items()}
    safetensors.torch.save_file(broken, "nan.safetensors")
    with pytest.raises(Misuse, match=message):
        load(where="beside", **model)
    if model.get("weights") == "code.pth":
        assert load(True, **model).model.state_dict().keys() >= {"network.fc.weight"}


def test_other_images_than_it_was_made_for_are_noted_or_refused(tmp_path):
    saved(tmp_path)
    found = load(source=str(tmp_path), size=(1, 16, 16))
    assert found.notes == ("it was made for (1, 8, 8) images and judges (1, 16, 16)",)
    with pytest.raises(Misuse, match=r"cannot take \(3, 8, 8\) images"):
        load(source=str(tmp_path), size=(3, 8, 8))


def test_the_digest_sees_architecture_names_and_every_bit():
    def net(activation: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), activation)

    first = sources.digest(net(nn.ReLU()))
    assert sources.digest(net(nn.ReLU())) == first
    assert re.fullmatch("[0-9a-f]{64}", first)
    moved, shifted, half = net(nn.ReLU()), net(nn.ReLU()), net(nn.ReLU()).bfloat16()
    with torch.no_grad():
        moved[0].weight[0, 0, 0, 0] = moved[0].weight[0, 0, 0, 0].nextafter(torch.tensor(9.0))
    shifted[1].running_mean += 1
    assert len({first, *(sources.digest(m) for m in (moved, shifted, half, net(nn.GELU())))}) == 5
    kinds = nn.Module()
    kinds.register_buffer("empty", torch.zeros(0))
    kinds.register_buffer("flag", torch.tensor(True))
    kinds.register_buffer("hidden", torch.zeros(2, dtype=torch.complex64), persistent=False)
    before = sources.digest(kinds)
    kinds.hidden += 1
    assert sources.digest(kinds) != before


def test_loading_draws_nothing_from_the_callers_generator(tmp_path):
    saved(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(source=str(tmp_path))
    assert torch.equal(torch.rand(2), expected)

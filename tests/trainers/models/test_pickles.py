"""Checkpoints of torch.save: tensors come out, code does not run."""

import collections
import os
import pickle

import pytest
import torch
from torch import nn

from trainers.models import pickles

STATE = {"a.weight": torch.arange(3.0), "a.bias": torch.zeros(1)}


class Runs:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def put(tmp_path, held, name="w.pth", **options):
    torch.save(held, tmp_path / name, **options)
    return str(tmp_path / name)


@pytest.mark.parametrize("key", ["", "state_dict", "model", "model_state_dict", "ema", "state_dict_ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_state_dict_is_found_under_its_key_and_unwrapped(tmp_path, key, prefix):
    state = collections.OrderedDict((prefix + name, t) for name, t in STATE.items())
    tensors, found = pickles.read(put(tmp_path, {key: state, "epoch": 3, "note": "x"} if key else state))
    assert found == key
    assert tensors.keys() == STATE.keys()
    assert torch.equal(tensors["a.weight"], STATE["a.weight"])


def test_wrappers_of_torch_are_taken_off():
    network = nn.Sequential(nn.Linear(2, 2))
    averaged = torch.optim.swa_utils.AveragedModel(network)
    assert "n_averaged" in averaged.state_dict()
    for wrapped in (averaged, nn.DataParallel(network), torch.compile(network)):
        assert pickles.peeled(wrapped.state_dict()).keys() == network.state_dict().keys()
    partly = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert pickles.peeled(partly) == partly


def test_of_two_states_the_first_key_is_taken(tmp_path):
    tensors, key = pickles.read(put(tmp_path, {"ema": {"a": torch.ones(1)}, "state_dict": {"a": torch.zeros(1)}}))
    assert key == "state_dict"
    assert tensors["a"].item() == 0


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_code_is_refused_and_does_not_run(tmp_path, options):
    path = put(tmp_path, {"state_dict": STATE, "extra": Runs(tmp_path / "ran")}, **options)
    with pytest.raises(ValueError, match=r"model\.weights='.*w\.pth' is a pickle that needs posix\.mkdir .*trust=true"):
        pickles.read(path)
    assert not (tmp_path / "ran").exists()
    tensors, _ = pickles.read(path, trust=True)
    assert (tmp_path / "ran").is_dir()
    assert tensors.keys() == STATE.keys()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_code_too(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ValueError, match="needs a TorchScript program to be read"):
        pickles.load(str(tmp_path / "w.pt"))
    assert isinstance(pickles.load(str(tmp_path / "w.pt"), trust=True), nn.Module)


def test_what_holds_no_state_or_is_broken_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no state dict but dict with the keys epoch, net; save the network's"):
        pickles.read(put(tmp_path, {"epoch": 1, "net": STATE}))
    with pytest.raises(ValueError, match="holds no state dict but list"):
        pickles.read(put(tmp_path, [1]))
    with pytest.raises(ValueError, match=r"x='.*gone\.pth': there is no such file"):
        pickles.load(str(tmp_path / "gone.pth"), setting="x")
    whole = (tmp_path / "w.pth").read_bytes()
    for name, content in (("cut", whole[:200]), ("empty", b""), ("plain", pickle.dumps({"a": 1})), ("text", b"hello")):
        (tmp_path / f"{name}.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"is truncated, or no file of torch\.save"):
            pickles.load(str(tmp_path / f"{name}.pth"))
    torch.save(collections.Counter, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes().replace(b"Counter", b"Counted"))
    with pytest.raises(ValueError, match="cannot be unpickled"):
        pickles.load(str(tmp_path / "w.pth"), trust=True)

import errno
import json
import re
import resource
import shutil
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tests.trainers import tiny
from trainers.objectives.standard import Standard
from trainers.state import State, StateError, load, save
from trainers.state_file import FORMAT
from trainers.step import Step
from trainers.types import Batch

BATCH = Batch(*(t[:8] for t in tiny.Data().everything()))
OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "amsgrad": partial(torch.optim.AdamW, amsgrad=True),
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.5, centered=True),
    "adagrad": torch.optim.Adagrad,
    "radam": torch.optim.RAdam,
}


def trained(factory=torch.optim.AdamW, steps=2, **options):
    state = tiny.state(tiny.net(), factory=factory, **options)
    advance(state, steps)
    return state


def advance(state, steps):
    step = Step(state, Standard())
    for _ in range(steps):
        step(BATCH, 0.0, lr=0.01)
        state.step += 1


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(t, b[n]) for n, t in a.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_continues_bit_for_bit(name, tmp_path):
    state, fresh = trained(OPTIMIZERS[name]), trained(OPTIMIZERS[name], steps=0)
    state.epoch, state.step_in_epoch, state.best_probe, state.ended = 3, 1, 0.1 + 0.2, "why"
    save(state, tmp_path / "s")
    load(fresh, tmp_path / "s")
    for field in ("step", "epoch", "step_in_epoch", "best_probe", "ended"):
        assert getattr(fresh, field) == getattr(state, field)
    assert str(fresh.optimizer.state_dict()["param_groups"]) == str(state.optimizer.state_dict()["param_groups"])
    advance(state, 2)
    advance(fresh, 2)
    assert_equal(state.weights(), fresh.weights())


def test_one_file_without_pickle_is_left_and_nothing_beside_it(tmp_path):
    save(trained(), tmp_path / "runs" / "s.safetensors")
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["s.safetensors"]
    with safe_open(tmp_path / "runs" / "s.safetensors", "pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["about"])
    assert (metadata["holdfast_format"], about["step"], about["config_digest"]) == (str(FORMAT), 2, "d")


def test_the_memory_of_the_alarm_travels_too(tmp_path):
    state, fresh = trained(), trained(steps=0)
    state.remember()
    good = {n: t.clone() for n, t in state.weights().items()}
    advance(state, 3)
    save(state, tmp_path / "s")
    load(fresh, tmp_path / "s")
    fresh.recall()
    assert_equal(fresh.weights(), good)
    assert fresh.step == 2


def test_tied_weights_and_channels_last_survive(tmp_path):
    def build():
        model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.GELU(), nn.Conv2d(2, 2, 3)).to(memory_format=torch.channels_last)
        model[2].weight = model[0].weight
        return tiny.state(model)

    state, fresh = build(), build()
    with torch.no_grad():
        state.model[0].weight.normal_()
    save(state, tmp_path / "s")
    load(fresh, tmp_path / "s")
    assert_equal(fresh.weights(), state.weights())
    assert fresh.model[0].weight.is_contiguous(memory_format=torch.channels_last)


def refused(path, match, state=None):
    state = state or trained(steps=0)
    before = {n: t.clone() for n, t in state.weights().items()}
    with pytest.raises(StateError, match=match):
        load(state, path)
    assert_equal(state.weights(), before)
    assert state.step == 0


def test_another_config_is_refused_and_both_are_named(tmp_path):
    save(trained(), tmp_path / "s")
    other = tiny.state(tiny.net(), digest="e")
    refused(tmp_path / "s", r"another config.*'d'.*'e'.*[Cc]ontinue it with the config", other)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    save(trained(), tmp_path / "s")
    whole = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(whole[: int(share * len(whole))])
    refused(tmp_path / "s", f"{re.escape(str(tmp_path / 's'))} is truncated or corrupt.*remove it")


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    save(trained(), tmp_path / "s")
    content = bytearray((tmp_path / "s").read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for place in [0, *range(8, header, 13), header, -2000, -1]:
        content[place] ^= 0x10
        (tmp_path / "s").write_bytes(content)
        refused(tmp_path / "s", "truncated or corrupt|state format|not a state")
        content[place] ^= 0x10


def test_other_formats_other_files_and_no_file_are_told_apart(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    refused(tmp_path / "foreign", "not a state saved by Holdfast")
    save_file({"x": torch.zeros(1)}, tmp_path / "future", {"holdfast_format": "99"})
    refused(tmp_path / "future", f"state format 99, this version reads {FORMAT}")
    refused(tmp_path / "none", "does not exist")


def test_another_network_is_refused(tmp_path):
    save(trained(), tmp_path / "s")
    wider = tiny.net()
    wider[8] = nn.Linear(8, 5)
    refused(tmp_path / "s", "another network: 4 weights differ.*ema/8.bias", tiny.state(wider))
    refused(tmp_path / "s", "another network", tiny.state(tiny.net(), ema=None))


@contextmanager
def largest_file(size):
    """The operating system refuses to write a file beyond ``size`` bytes, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("when", ["before writing", "while writing"])
def test_a_full_disk_is_told_with_the_bytes_needed_and_the_old_file_stays(tmp_path, monkeypatch, when):
    path, newer = tmp_path / "s", trained(steps=2)
    save(trained(steps=1), path)
    before = path.read_bytes()
    if when == "before writing":
        full, code = nullcontext(), errno.ENOSPC
        monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10))
    else:
        full, code = largest_file(1000), errno.EFBIG
    with (
        pytest.raises(OSError, match=r"[\d,]{5,} bytes needed\) to .*/s: .*free some space.*untouched") as caught,
        full,
    ):
        save(newer, path)
    assert caught.value.errno == code
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_an_average_needs_a_decay_between_0_and_1():
    model = tiny.net()
    with pytest.raises(ValueError, match=r"^ema=1 must be in \(0, 1\)"):
        State.create(model, torch.optim.SGD(model.parameters()), 1.0)

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.trainers import tiny
from tests.trainers.two_ranks import BATCH
from trainers import distributed
from trainers.loop import fit
from trainers.step import Step

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two ranks under plain torchrun found."""
    out = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = str(Path(__file__).with_name("two_ranks.py"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, script, str(out)], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_alone_every_call_is_the_identity():
    tensor, module, counts = torch.ones(2), torch.nn.BatchNorm1d(1), Counter(a=2)
    assert (distributed.rank(), distributed.world(), distributed.is_main()) == (0, 1, True)
    assert distributed.total(tensor) is tensor
    assert distributed.agree(0.1) == 0.1
    assert distributed.wrap(module) is module
    assert distributed.merge(counts) == {"a": 2}
    distributed.share_buffers(module)
    assert module.running_mean.item() == 0
    assert distributed.init("cpu") == torch.device("cpu")
    assert not torch.distributed.is_initialized()


def test_torchrun_s_ranks_find_one_another(ranks):
    assert [r["world"] for r in ranks] == [2, 2]
    assert [r["main"] for r in ranks] == [True, False]
    assert [r["agreed"] for r in ranks] == [10.0, 10.0]
    assert all(torch.equal(r["total"], torch.tensor([2.0, 1.0])) for r in ranks)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", tiny.objectives())
def test_two_ranks_of_4_have_the_gradient_of_one_of_8(ranks, name, accumulate):
    for found in ranks:
        assert_the_whole_batch_s(found["gradients"][name, accumulate], name, 1e-6)


@pytest.mark.parametrize("name", ["standard", "gradient_regularized"])
def test_so_do_two_ranks_that_compile(ranks, name):
    for found in ranks:
        assert_the_whole_batch_s(found["compiled"][name], name, 1e-5)


def assert_the_whole_batch_s(gradients, name, tolerance):
    state = tiny.state(tiny.net().eval(), ema=None)
    loss = Step(state, tiny.objectives()[name])._gradients(BATCH, 0.3)["loss"]
    expected = {n: p.grad for n, p in state.model.named_parameters()} | {"loss": loss}
    for n, t in gradients.items():
        torch.testing.assert_close(t, expected[n], rtol=tolerance, atol=tolerance, msg=n)


def test_two_ranks_train_the_same_weights_and_tell_the_same_reports(ranks):
    one, two = (r["trained"] for r in ranks)
    assert one["reports"] == two["reports"]
    assert len(one["reports"]) > 3
    assert all(torch.equal(t, two["weights"][n]) for n, t in one["weights"].items())


def test_two_ranks_train_what_one_trains(ranks):
    state = tiny.state(tiny.net())
    reports = list(fit(state, tiny.objectives()["adversarial_training"], tiny.Data(), tiny.settings(report_steps=1)))
    for n, t in ranks[0]["trained"]["weights"].items():
        torch.testing.assert_close(t, state.weights()[n], rtol=1e-4, atol=1e-5, msg=n)
    for name in ("loss", "adversarial_accuracy", "lr"):
        told = [v for *_, each in ranks[0]["trained"]["reports"] for v in each.get(name, ())]
        assert told == pytest.approx([r.metrics[name] for r in reports[:-1] if name in r.metrics], rel=1e-4)


def test_at_every_report_both_ranks_hold_one_network_and_one_average(ranks):
    """BatchNorm's statistics too, which each rank gathers from its own half of the batch."""
    one, two = (r["looked_at"] for r in ranks)
    assert len(one) == len(two) == 7
    assert {"model/1.running_mean", "ema/1.running_mean", "model/1.num_batches_tracked"} <= one[0].keys()
    for here, there in zip(one, two, strict=True):
        assert [n for n, t in here.items() if not torch.equal(t, there[n])] == []
    assert not torch.equal(one[0]["model/1.running_mean"], one[1]["model/1.running_mean"])


def test_both_ranks_probe_one_network(ranks):
    one, two = (r["probed"] for r in ranks)
    assert len(one) == 2
    assert all(torch.equal(here, there) for here, there in zip(one, two, strict=True))


def test_counters_are_added_up_over_ranks(ranks):
    assert all(r["merged"] == {"both.jpg": 3, "0.jpg": 5, "1.jpg": 5} for r in ranks)


def test_rank_0_s_probe_decides_for_all(ranks):
    for found in ranks:
        epochs = [m["probe_robust_accuracy"] for _, kind, _, m, _ in found["trained"]["reports"] if kind == "epoch"]
        assert epochs == [0.5, 0.5]


def test_a_nan_on_one_rank_stops_both(ranks):
    assert ranks[0]["diverged"] == ranks[1]["diverged"]
    assert "training diverged at step 1: the loss is nan" in ranks[0]["diverged"]

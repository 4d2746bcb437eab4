import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainers import tiny
from trainers.alarm import Alarm, CatastrophicOverfitting
from trainers.interval import Diverged, Pace
from trainers.loop import fit
from trainers.objectives.standard import Standard
from trainers.optimizers import Cosine, groups
from trainers.state import load, save

DATA = tiny.Data()  # 5 steps an epoch
NAMES = list(tiny.objectives())


def run(state, objective=None, data=DATA, probe=None, **changed):
    return list(fit(state, objective or Standard(), data, tiny.settings(**changed), probe))


def test_reports_come_every_few_steps_and_at_epoch_ends():
    reports = run(tiny.state(tiny.net()), report_steps=3)
    assert [(r.kind, r.step) for r in reports] == [
        ("report", 3), ("epoch", 5), ("report", 6), ("report", 9), ("epoch", 10), ("end", 10)
    ]  # fmt: skip
    assert [r.epoch for r in reports] == pytest.approx([0.6, 1, 1.2, 1.8, 2, 2])
    assert [r.images for r in reports] == [24, 40, 48, 72, 80, 80]
    assert reports[-1].reason == "finished 2 epochs"
    assert {"loss", "accuracy", "gradient_norm", "lr"} <= reports[0].metrics.keys()


def test_a_report_holds_the_means_of_its_interval_and_each_step_on_request():
    each = run(tiny.state(tiny.net()), report_steps=1)
    every = run(tiny.state(tiny.net()), report_steps=3, each_step=True)
    losses = [r.metrics["loss"] for r in each[:-1]]
    assert every[0].metrics["loss"] == pytest.approx(sum(losses[:3]) / 3)
    assert every[1].metrics["loss"] == pytest.approx(sum(losses[3:5]) / 2)
    assert [loss for r in every[:-1] for loss in r.each_step["loss"]] == pytest.approx(losses)
    schedule = tiny.settings().schedule
    assert [lr for r in every[:-1] for lr in r.each_step["lr"]] == [schedule(i / 5, 2) for i in range(10)]
    assert losses[-1] < losses[0]


def test_seconds_become_steps_that_adapt():
    pace = Pace(None, 10.0)
    pace.begin(7)
    assert pace.due == 8
    pace.reported(8, taken=1, seconds=60.0)  # compiling
    assert pace.due == 9
    pace.reported(9, taken=1, seconds=0.1)
    assert pace.due == 19  # ten times as many, not the 100 that would fit
    pace.reported(19, taken=10, seconds=1.0)
    assert pace.due == 119


def test_reports_every_so_many_seconds():
    assert [r.step for r in run(tiny.state(tiny.net()), report_seconds=1e-9, epochs=1)] == [1, 2, 3, 4, 5, 5]
    assert [r.step for r in run(tiny.state(tiny.net()), report_seconds=1e6, epochs=1)] == [1, 5, 5]


class Reads(TorchDispatchMode):
    """Counts how often a floating-point tensor is read from Python."""

    def __init__(self):
        super().__init__()
        self.floats = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_floating_point():
            self.floats += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["standard", "gradient_regularized"])
def test_nothing_is_read_between_report_points(name):
    state = tiny.state(tiny.net(), factory=torch.optim.SGD)  # AdamW reads its own CPU counters
    with Reads() as reads:
        reports = fit(state, tiny.objectives()[name], DATA, tiny.settings(epochs=1, clip_norm=1.0, accumulate=2))
        assert next(reports).kind == "epoch"
    assert reads.floats == 0


def test_the_reader_may_evaluate_and_draw_random_numbers():
    def train(disturb):
        state = tiny.state(tiny.net(dropout=0.3))
        for _ in fit(state, Standard(), DATA, tiny.settings(report_steps=2)):
            if disturb:
                state.model.eval()
                torch.rand(3)
        return state.weights()

    quiet, disturbed = train(False), train(True)
    assert all(torch.equal(t, disturbed[n]) for n, t in quiet.items())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_objective_chooses_the_mode(mode):
    state = tiny.state(tiny.net())
    before = state.model[1].running_mean.clone()
    run(state, Standard(mode=mode), epochs=1)
    assert torch.equal(before, state.model[1].running_mean) == (mode == "eval")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_killed_at_any_step_and_continued_has_the_same_weights(name, tmp_path):
    """Soft targets, random starts, dropout, BatchNorm, accumulation and average at once; saved inside epochs too."""
    objective, data = tiny.objectives(mode="train")[name], tiny.Data(soft=True)
    settings = tiny.settings(report_steps=1, accumulate=3, clip_norm=1.0)

    whole = tiny.state(tiny.net(dropout=0.3))
    for report in fit(whole, objective, data, settings):
        save(whole, tmp_path / f"{report.step}")
    for at in (1, 3, 5, 8, 10):
        resumed = tiny.state(tiny.net(dropout=0.3, seed=9))
        load(resumed, tmp_path / f"{at}")
        assert resumed.step == at
        for _ in fit(resumed, objective, data, settings):
            pass
        assert all(torch.equal(t, resumed.weights()[n]) for n, t in whole.weights().items()), at


SCRIPT = """
import os, signal, sys
from tests.trainers import tiny
from trainers.loop import fit
from trainers.state import load, save
path, kill_at = sys.argv[1], int(sys.argv[2])
state = tiny.state(tiny.net(dropout=0.3))
if os.path.exists(path):
    load(state, path)
objective = tiny.objectives(mode="train")["adversarial_training"]
for report in fit(state, objective, tiny.Data(soft=True), tiny.settings(report_steps=1)):
    if report.step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    if report.step % 3 == 0 or report.kind == "end":
        save(state, path)
"""


def test_a_process_killed_with_9_is_continued_by_another(tmp_path):
    """The uninterrupted run has a process like theirs: with another number of threads, sums would round otherwise."""

    def process(path, kill_at):
        root = Path(__file__).parents[2]
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, "-c", SCRIPT, path, str(kill_at)], env=environment, cwd=root).returncode

    assert process(tmp_path / "killed", 8) == -signal.SIGKILL
    saved = tiny.state(tiny.net())
    load(saved, tmp_path / "killed")
    assert saved.step == 6
    assert process(tmp_path / "killed", 0) == 0
    assert process(tmp_path / "whole", 0) == 0
    continued, whole = tiny.state(tiny.net()), tiny.state(tiny.net())
    load(continued, tmp_path / "killed")
    load(whole, tmp_path / "whole")
    assert continued.step == whole.step == 10
    torch.testing.assert_close(continued.weights(), whole.weights(), rtol=0, atol=0)


def test_a_finished_run_reports_its_end_and_trains_no_more():
    state = tiny.state(tiny.net())
    run(state)
    before = {n: t.clone() for n, t in state.weights().items()}
    assert [r.kind for r in run(state)] == ["end"]
    assert all(torch.equal(t, before[n]) for n, t in state.weights().items())


def test_a_nan_is_named_with_its_step_and_never_offered_for_saving(tmp_path):
    state, saved = tiny.state(tiny.net()), []

    def train_and_save():
        for report in fit(state, Standard(), tiny.Data(poisoned=7), tiny.settings(report_steps=2)):
            save(state, tmp_path / "s")
            saved.append(report.step)

    with pytest.raises(
        Diverged,
        match=r"diverged at step 8: the loss is nan, at learning rate .*Lower optimizer.lr, .*try precision=float32",
    ):
        train_and_save()
    assert saved == [2, 4, 5, 6]
    last = tiny.state(tiny.net())
    load(last, tmp_path / "s")
    assert last.step == 6
    assert all(t.isfinite().all() for t in last.weights().values())


def test_weights_lost_in_the_last_step_before_a_report_are_noticed():
    class Kinked(Standard):
        def __call__(self, model, x, y, keys=None, epoch=math.inf):
            loss, metrics = super().__call__(model, x, y, keys, epoch)
            return loss + (0 * model[8].bias.sum()).abs().sqrt(), metrics  # 0, with a gradient that is not a number

    with pytest.raises(Diverged, match="step 1: weights are not finite, after a loss of"):
        run(tiny.state(tiny.net()), Kinked(), report_steps=1)


def test_a_loss_above_the_ceiling_is_divergence():
    with pytest.raises(Diverged, match=r"mean loss of the last 2 steps is .*\(> 0.01\)"):
        run(tiny.state(tiny.net()), report_steps=2, loss_ceiling=0.01)


def scripted(values):
    """A probe that says ``values`` one after another."""
    said = iter(values)
    return lambda model: next(said)


def test_the_alarm_warns_and_goes_on():
    with pytest.warns(CatastrophicOverfitting, match=r"fell to 0.100 after epoch 2, from 0.400 at best") as caught:
        reports = run(tiny.state(tiny.net()), probe=scripted([0.4, 0.1, 0.3]), epochs=3, alarm=Alarm("warn"))
    assert Counter(w.category for w in caught) == {CatastrophicOverfitting: 1}
    assert [r.metrics["catastrophic_overfitting"] for r in reports if r.kind == "epoch"] == [0, 1, 0]
    assert [r.metrics["probe_robust_accuracy"] for r in reports if r.kind == "epoch"] == [0.4, 0.1, 0.3]
    assert reports[-1].reason == "finished 3 epochs"


def test_the_alarm_stops_at_the_last_good_epoch(tmp_path):
    state = tiny.state(tiny.net())
    probe = scripted([0.4, 0.3, 0.1])
    training = fit(state, Standard(), DATA, tiny.settings(epochs=9, alarm=Alarm("stop")), probe)
    with pytest.warns(CatastrophicOverfitting):
        told = [(report, {n: t.clone() for n, t in state.weights().items()}) for report in training]
    reports, weights = zip(*told, strict=True)
    assert [(r.kind, r.step, r.epoch, r.good) for r in reports] == [
        ("epoch", 5, 1, True), ("epoch", 10, 2, True), ("epoch", 15, 3, False), ("end", 10, 2, True)
    ]  # fmt: skip
    assert reports[2].metrics["catastrophic_overfitting"] == 1
    assert reports[2].metrics["probe_robust_accuracy"] == 0.1
    assert reports[2].metrics["loss"] > 0
    assert reports[2].seconds > 0
    assert "stopped after epoch 2, the last good one: catastrophic overfitting" in reports[-1].reason
    assert not all(torch.equal(t, weights[1][n]) for n, t in weights[2].items())
    assert all(torch.equal(t, weights[1][n]) for n, t in weights[3].items())

    save(state, tmp_path / "s")
    resumed = tiny.state(tiny.net())
    load(resumed, tmp_path / "s")
    assert [r.kind for r in run(resumed, probe=scripted([]), epochs=9, alarm=Alarm("stop"))] == ["end"]


def test_a_model_that_never_was_robust_and_a_small_fall_do_not_ring():
    quiet = run(tiny.state(tiny.net()), probe=scripted([0.05, 0.0, 0.4, 0.21]), epochs=4, alarm=Alarm("stop"))
    assert [r.kind for r in quiet] == ["epoch"] * 4 + ["end"]
    with pytest.warns(CatastrophicOverfitting, match="fell to nan"):
        run(tiny.state(tiny.net()), probe=scripted([0.5, math.nan]), alarm=Alarm("warn"))


def test_the_probe_sees_the_trained_weights_in_eval_mode():
    state = tiny.state(tiny.net())

    def probe(model):
        assert model is state.model
        assert not any(m.training for m in model.modules())
        return 0.5

    run(state, probe=probe, alarm=Alarm("warn"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"accumulate": 0}, "accumulate=0 must be at least 1"),
        ({"accumulate": 9}, "accumulate=9 is more than the 8 examples"),
        ({"clip_norm": 0.0}, "clip_norm=0 must be above 0"),
        ({"report_steps": -1}, r"report\.steps=-1 must not be negative; 0 switches it off"),
        ({"report_seconds": -0.5}, r"report\.seconds=-0\.5 must not be negative"),
        ({"report_steps": 1, "report_seconds": 1.0}, r"report\.steps=1 and report\.seconds=1 are both set: keep one"),
        ({"schedule": Cosine(lr=0.1, warmup_epochs=2)}, "warmup_epochs=2 leaves nothing of epochs=2"),
        ({"alarm": Alarm("stop")}, "alarm.policy='stop' needs a probe"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(changed, message):
    with pytest.raises(ValueError, match=message):
        fit(tiny.state(tiny.net()), Standard(), DATA, tiny.settings(**changed))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Alarm("loud"), "alarm.policy='loud'"),
        (lambda: Alarm(share=0), "alarm.share=0"),
        (lambda: Cosine(lr=0), "optimizer.lr=0"),
        (lambda: Cosine(lr=0.1, min_lr=0.2), "schedule.min_lr=0.2 is above optimizer.lr=0.1"),
        (lambda: Cosine(lr=0.1, warmup_lr=-1), "schedule.warmup_lr=-1"),
        (lambda: groups(tiny.net(), -1), "optimizer.weight_decay=-1"),
    ],
)
def test_values_outside_their_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_learning_rate_warms_up_in_a_line_and_falls_along_a_cosine():
    schedule = Cosine(lr=1.0, warmup_epochs=2, warmup_lr=0.1, min_lr=0.2)
    assert [schedule(t, 10) for t in (0, 1, 2, 6, 10)] == pytest.approx([0.1, 0.55, 1.0, 0.6, 0.2])
    assert schedule(4, 10) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


def test_norms_biases_and_what_timm_exempts_do_not_decay():
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embed, self.weight = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2))

        def no_weight_decay(self):
            return {"pos_embed"}

    model = torch.nn.ModuleDict({"net": tiny.net(), "tokens": Tokens()})
    decayed, rest = groups(model, 0.05)
    names = {p: n for n, p in model.named_parameters()}
    assert {names[p] for p in decayed["params"]} == {"net.0.weight", "net.6.weight", "net.8.weight", "tokens.weight"}
    assert {names[p] for p in rest["params"]} >= {"tokens.pos_embed", "net.1.weight", "net.6.bias"}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)

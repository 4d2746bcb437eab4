import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from tests.trainers import tiny
from trainers.objectives.standard import Standard
from trainers.step import Step
from trainers.types import Batch

BATCH = Batch(*(t[:8] for t in tiny.Data().everything()))


def gradients(objective, batch=BATCH, model=None, **options):
    """The loss and the gradients that reach the optimizer."""
    state = tiny.state(model or tiny.net(), ema=None)
    step = Step(state, objective, **options)
    state.model.train(objective.mode == "train")
    metrics = step._gradients(batch, 0.3)
    return metrics["loss"], [p.grad for p in state.model.parameters()]


def assert_close(a, b, tolerance):
    (loss_a, grads_a), (loss_b, grads_b) = a, b
    torch.testing.assert_close(loss_a, loss_b, rtol=tolerance, atol=tolerance)
    for g_a, g_b in zip(grads_a, grads_b, strict=True):
        torch.testing.assert_close(g_a, g_b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("accumulate", [2, 3, 8])
@pytest.mark.parametrize("name", tiny.objectives())
def test_accumulated_micro_batches_of_any_size_give_the_gradient_of_the_whole(name, accumulate):
    objective = tiny.objectives()[name]
    assert_close(gradients(objective, accumulate=accumulate), gradients(objective), 1e-6)


def test_unequal_micro_batches_count_by_their_size():
    class PerExample(Standard):
        def __call__(self, model, x, y, keys=None, epoch=math.inf):
            loss = model(x).square().mean() * 0 + y.float().mean()
            return loss, {"y": y.float().mean()}

    batch = Batch(BATCH.x[:7], torch.tensor([0, 0, 0, 0, 0, 0, 7]), BATCH.keys[:7])
    state = tiny.state(tiny.net(), ema=None)
    metrics = Step(state, PerExample(), accumulate=2)._gradients(batch, 0.0)
    assert metrics["loss"].item() == pytest.approx(1)
    assert metrics["y"].item() == pytest.approx(1)


def test_a_step_descends_clips_and_averages():
    state = tiny.state(tiny.net(), ema=0.9, factory=torch.optim.SGD)
    before = deepcopy(dict(state.model.named_parameters()))
    metrics = Step(state, Standard(), clip_norm=1e-3)(BATCH, 0.0, lr=2.0)
    moved = sum((p - before[n]).square().sum() for n, p in state.model.named_parameters()).sqrt()
    decay = sum((0.05 * 2.0 * b).square().sum() for n, b in before.items() if b.dim() > 1).sqrt()
    assert moved <= 2.0 * 1e-3 + decay + 1e-6
    assert metrics["gradient_norm"] > 1e-3
    assert all(p.grad is None for p in state.model.parameters())


def test_the_average_follows_timm_s_warm_up_and_holds_the_buffers():
    state = tiny.state(tiny.net(), ema=0.99)
    expected = {n: t.clone() for n, t in state.model.state_dict().items()}
    step = Step(state, Standard())
    state.model.train()
    for i in range(1, 5):
        step(BATCH, 0.0, lr=0.1)
        state.step += 1
        decay = min(0.99, 1 - i ** (-2 / 3)) if i > 1 else 0.0
        for n, t in state.model.state_dict().items():
            expected[n] = decay * expected[n] + (1 - decay) * t if t.is_floating_point() else t.clone()
    for n, t in state.ema.module.state_dict().items():
        torch.testing.assert_close(t, expected[n], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["standard", "gradient_regularized", "trades"])
def test_bfloat16_reaches_every_parameter_and_points_the_same_way(name):
    objective = tiny.objectives()[name]
    (loss, exact), (rough_loss, rough) = gradients(objective), gradients(objective, bf16=True)
    assert rough_loss.dtype == torch.float32
    assert rough_loss.item() == pytest.approx(loss.item(), rel=0.02)
    flat, rough_flat = (torch.cat([g.flatten() for g in grads]) for grads in (exact, rough))
    assert torch.cosine_similarity(flat, rough_flat, 0) > 0.98


def test_bfloat16_casts_made_without_gradients_do_not_cut_parameters_off():
    class Peek(Standard):
        def __call__(self, model, x, y, keys=None, epoch=math.inf):
            with torch.no_grad():
                model(x)
            return super().__call__(model, x, y, keys, epoch)

    _, grads = gradients(Peek(mode="eval"), bf16=True)
    assert all(g is not None and g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("name", ["standard", "gradient_regularized"])
def test_channels_last_changes_the_layout_and_not_the_result(name):
    objective = tiny.objectives()[name]
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *tiny.net())
    model[1] = nn.Conv2d(8, 4, 3, padding=1)
    assert_close(
        gradients(objective, model=deepcopy(model), channels_last=True), gradients(objective, model=model), 1e-5
    )
    state = tiny.state(model, ema=0.9)
    step = Step(state, objective, channels_last=True)
    step(BATCH, 0.0, lr=0.1)
    for network in (state.model, state.network):
        assert network[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert state.optimizer.state[model[1].weight]["exp_avg"].stride() == model[1].weight.stride()


def test_sync_batch_norm_is_refused_under_a_second_order_objective():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(tiny.net())
    with pytest.raises(ValueError, match="SyncBatchNorm"):
        Step(tiny.state(model), tiny.objectives()["gradient_regularized"])


def steps(objective, model, n=3, **options):
    state = tiny.state(model)
    step = Step(state, objective, **options)
    state.model.train(objective.mode == "train")
    for _ in range(n):
        step(BATCH, 0.0, lr=0.05)
        state.step += 1
    return state.weights()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["standard", "gradient_regularized", "adversarial_training"])
def test_the_check_of_a_compiled_step_leaves_the_trajectory_alone(name, bf16):
    """``backend="eager"`` runs the captured graph op by op, so not one bit may differ; BatchNorm and dropout live."""
    torch._dynamo.reset()
    objective = tiny.objectives(mode="train")[name]
    plain = steps(objective, tiny.net(dropout=0.3), bf16=bf16)
    compiled = steps(objective, tiny.net(dropout=0.3), bf16=bf16, compile=True, backend="eager")
    for n, t in plain.items():
        assert torch.equal(t, compiled[n]), n


def dense():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, tiny.CLASSES))


@pytest.mark.parametrize("name", ["standard", "gradient_regularized"])
def test_inductor_agrees_with_eager_and_draws_the_same_dropout(name):
    torch._dynamo.reset()
    objective = tiny.objectives(mode="train")[name]
    model = tiny.net(dropout=0.3) if name == "standard" else dense()  # a second-order convolution compiles for 20 s
    plain = steps(objective, deepcopy(model), n=2)
    compiled = steps(objective, model, n=2, compile=True)
    for n, t in plain.items():
        torch.testing.assert_close(compiled[n], t, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_compiler_that_is_wrong_is_caught_before_anything_is_trained(bf16):
    torch._dynamo.reset()

    def wrong(graph, inputs):
        return lambda *args: tuple(out * 1.2 for out in graph(*args))

    state = tiny.state(tiny.net().eval())
    before = {n: t.clone() for n, t in state.weights().items()}
    with pytest.raises(RuntimeError, match=r"compile=True gives another result.*Set compile=False"):
        Step(state, tiny.objectives()["standard"], compile=True, backend=wrong, bf16=bf16)(BATCH, 0.0, lr=0.1)
    assert all(torch.equal(t, before[n]) for n, t in state.weights().items())

"""One optimizer step: forward, backward, clip, update, average."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from trainers import distributed, noise
from trainers.state import State, match_layout
from trainers.types import Batch, Metrics, Objective

_TORCH_SEED = 0x70C4  # names the stream that seeds torch's own generators


class LossModule(nn.Module):
    """The objective as a module of the model's parameters: what is compiled, and what DDP wraps.

    DDP must see one forward that returns the loss, whatever number of passes the objective makes inside it.
    """

    def __init__(self, objective: Objective, model: nn.Module) -> None:
        super().__init__()
        self.objective, self.model = objective, model

    def forward(self, x: Tensor, y: Tensor, keys: Tensor, epoch: Tensor) -> tuple[Tensor, Metrics]:
        return self.objective(self.model, x, y, keys, epoch)


class Step:
    """``step(batch, epoch, lr)`` moves ``state`` by one optimizer step on this rank's share of the batch.

    The loss is the mean over the examples of all ranks: of ``accumulate`` micro-batches each counts by its size, and
    ranks have equal shares.  ``epoch`` is the fractional epoch.  Metrics stay on the device: the objective's own, plus
    ``loss`` and ``gradient_norm`` (before clipping), means over this rank's share.

    torch's generators, which dropout draws from, are seeded anew in every step by (seed, step, rank): a resumed run
    then draws what an uninterrupted one does, and nothing about them has to be saved.

    ``compile`` takes the loss with its input gradient as one graph for second-order objectives, the network alone for
    others, whose attacks then run compiled too.  The first step is compared with eager execution: some versions of
    torch compiled a double backward into something else without an error (pytorch #183603, #136662).
    ``backend`` and what it may be are torch.compile's own.

    Errors: ``ValueError`` for SyncBatchNorm under a second-order objective; ``RuntimeError`` from the comparison.
    """

    def __init__(
        self,
        state: State,
        objective: Objective,
        *,
        seed: int = 0,
        accumulate: int = 1,
        clip_norm: float | None = None,
        bf16: bool = False,
        channels_last: bool = False,
        compile: bool = False,
        backend: Any = "inductor",
    ) -> None:
        if objective.second_order and any(isinstance(m, nn.SyncBatchNorm) for m in state.model.modules()):
            raise ValueError(
                "SyncBatchNorm has no second derivative (pytorch #61222): use BatchNorm with this objective"
            )
        self.state, self.seed, self.accumulate, self.clip_norm = state, seed, accumulate, clip_norm
        self.bf16, self.channels_last = bf16, channels_last
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.unchecked = compile
        if channels_last:
            for network in {state.model, state.network}:
                network.to(memory_format=torch.channels_last)
            match_layout(state.optimizer)
        self.loss = distributed.wrap(_loss_module(objective, state.model, backend if compile else None))

    def __call__(self, batch: Batch, epoch: float, lr: float) -> Metrics:
        state = self.state
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        metrics = self._checked_gradients(batch, epoch) if self.unchecked else self._gradients(batch, epoch)
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.clip_norm is not None:
            clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema is not None:
            state.ema.update(state.model, step=state.step + 1)
        return {**metrics, "gradient_norm": norm}

    def _gradients(self, batch: Batch, epoch: float) -> Metrics:
        """Fill ``.grad`` with the gradient of the mean loss over the batch of all ranks."""
        rank_key = torch.tensor([distributed.rank()])
        torch.manual_seed(int(noise.stream(rank_key, _TORCH_SEED, self.seed, self.state.step)) & (2**63 - 1))
        keys = noise.stream(batch.keys, self.seed, self.state.epoch)
        x = batch.x.contiguous(memory_format=torch.channels_last) if self.channels_last else batch.x
        parts = list(zip(*(t.tensor_split(self.accumulate) for t in (x, batch.y, keys)), strict=True))
        means: Metrics = {}
        for i, (x, y, keys) in enumerate(parts):
            share = len(x) / len(batch.x)
            with self._unsynced(i < len(parts) - 1):
                # No cast cache: a weight first cast without gradients would stay cut off from its parameter.
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
                    loss, metrics = self.loss(x, y, keys, torch.tensor(epoch, dtype=torch.float32))
                # Outside autocast: a compiled backward keeps the state it was traced in.
                (loss * share).backward()
            for name, value in {"loss": loss.detach(), **metrics}.items():
                means[name] = means[name] + value * share if name in means else value * share
        return means

    def _unsynced(self, more: bool) -> AbstractContextManager[Any]:
        """All ranks add up their gradients once, in the last micro-batch's backward."""
        return cast(DistributedDataParallel, self.loss).no_sync() if more and distributed.world() > 1 else nullcontext()

    def _checked_gradients(self, batch: Batch, epoch: float) -> Metrics:
        """As ``_gradients``, compiled, after the same eagerly: leaves what the compiled one alone would.

        Both are held against eager float32.  In bfloat16 the compiled step may be three times as far from it as the
        eager one, which says how much rounding matters here: measured 0.2 % (frozen BatchNorm) to 25 % (an attack
        on an untrained network with live BatchNorm).
        """
        exact = self._eager(batch, epoch, bf16=False)
        rounding = _apart(self._eager(batch, epoch, bf16=True), exact) if self.bf16 else 0.0
        metrics = self._gradients(batch, epoch)
        self.unchecked = False
        error = _apart(self._result(metrics), exact)
        allowed = max(_tolerance(self.device), 3 * rounding)
        wrong = exact[0] is not None and bool(exact[0].isfinite()) and not error <= allowed
        if distributed.total(torch.tensor(float(wrong))) > 0:
            raise RuntimeError(
                f"compile=True gives another result than eager execution with torch {torch.__version__}: relative "
                f"error of loss or gradients {error:.1e}, allowed {allowed:.1e} (on rank {distributed.rank()}). "
                "Nothing was trained. Set compile=False, or use another version of torch"
            )
        return metrics

    def _eager(self, batch: Batch, epoch: float, bf16: bool) -> list[Tensor | None]:
        """Loss and gradients without the compiler; buffers, gradients and settings are as before afterwards."""
        buffers = [b.clone() for b in self.state.model.buffers()]
        configured, self.bf16 = self.bf16, bf16
        with torch.compiler.set_stance("force_eager"):
            result = self._result(self._gradients(batch, epoch))
        self.bf16 = configured
        self.state.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in zip(self.state.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        return result

    def _result(self, metrics: Metrics) -> list[Tensor | None]:
        return [metrics["loss"], *(p.grad for p in self.parameters)]


def check_compiles(objective: Objective) -> None:
    """``ValueError`` for an objective that torch.compile cannot take as one graph."""
    at = getattr(objective, "at", None)
    if objective.second_order and hasattr(at, "maximise"):
        raise ValueError(
            f"compile=true: an attack (objective.at={at}) inside a loss with an input gradient "
            "does not compile as one graph; set compile=false, or objective.at to null or a threat"
        )


def _loss_module(objective: Objective, model: nn.Module, backend: Any) -> Any:
    if backend is None:
        return LossModule(objective, model)
    check_compiles(objective)
    # Dropout draws the numbers it draws in eager execution, or the two could not be compared.
    options: Any = {"fallback_random": True} if backend == "inductor" else None
    if objective.second_order:
        return torch.compile(LossModule(objective, model), fullgraph=True, backend=backend, options=options)
    return LossModule(objective, cast(nn.Module, torch.compile(model, backend=backend, options=options)))


def _apart(found: list[Tensor | None], expected: list[Tensor | None]) -> float:
    """The larger relative error, ``||found - expected||_2 / ||expected||_2``, of the loss and of all gradients."""
    return max(_relative(found[:1], expected[:1]), _relative(found[1:], expected[1:]))


def _relative(found: list[Tensor | None], expected: list[Tensor | None]) -> float:
    """Infinite where something is not finite, or only one of a pair is there."""
    if any((f is None) != (e is None) for f, e in zip(found, expected, strict=True)):
        return math.inf
    pairs = [(f.double(), e.double()) for f, e in zip(found, expected, strict=True) if f is not None and e is not None]
    difference = sum(float((f - e).square().sum()) for f, e in pairs)
    scale = sum(float(e.square().sum()) for _, e in pairs)
    return math.sqrt(difference / max(scale, 1e-30)) if math.isfinite(difference) else math.inf


def _tolerance(device: torch.device) -> float:
    """Rounding, not error: measured 1e-7 to 4e-4 in float32.  TF32, cuDNN's default, keeps 10 bits of each factor."""
    return 1e-2 if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else 1e-3

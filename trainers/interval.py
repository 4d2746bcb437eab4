"""What happens between two reports: metrics gather on the device, and are read once."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.distributed import agree, total, world
from trainers.state import State
from trainers.types import Metrics


class Diverged(RuntimeError):
    """Training left the finite numbers, or its loss every bound.  The state must not be saved."""


@dataclass(frozen=True)
class Reading:
    """``each_step``: per metric, one value a step, means over all ranks; ``seconds``: rank 0's clock."""

    each_step: dict[str, tuple[float, ...]]
    seconds: float

    def means(self) -> dict[str, float]:
        return {name: math.fsum(values) / len(values) for name, values in self.each_step.items()}


class Interval:
    """Metrics since the last report, one row a step."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.restart()

    def restart(self) -> None:
        self.rows: list[Tensor] = []
        self.lrs: list[float] = []
        self.began = time.perf_counter()

    def add(self, metrics: Metrics, lr: float) -> None:
        self.names = list(metrics)
        self.rows.append(torch.stack([value.float() for value in metrics.values()]))
        self.lrs.append(lr)

    def read(self, state: State, loss_ceiling: float) -> Reading:
        """The one place that waits for the device and for the other ranks.

        Errors: ``Diverged``, on all ranks alike, for a loss or weights that are not finite, or a mean loss above
        ``loss_ceiling``.
        """
        rows, bad = torch.stack(self.rows), _non_finite(state)
        flat = total(torch.cat([rows.flatten(), bad.to(rows)[None]])).double().tolist()
        width = len(self.names)
        columns = {name: tuple(v / world() for v in flat[i:-1:width]) for i, name in enumerate(self.names)}
        seconds = agree(time.perf_counter() - self.began)
        self._refuse_divergence(state, columns["loss"], flat[-1], loss_ceiling)
        return Reading({**columns, "lr": tuple(self.lrs)}, seconds)

    def _refuse_divergence(self, state: State, losses: tuple[float, ...], bad: float, ceiling: float) -> None:
        first = state.step - len(losses) + 1
        at = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        mean = math.fsum(losses) / len(losses) if at is None else math.nan
        if at is not None:
            what = f"the loss is {losses[at]:g}"
        elif bad:
            at, what = len(losses) - 1, f"weights are not finite, after a loss of {losses[-1]:g}"
        elif mean > ceiling:
            at, what = len(losses) - 1, f"the mean loss of the last {len(losses)} steps is {mean:g} (> {ceiling:g})"
        else:
            return
        raise Diverged(
            f"training diverged at step {first + at}: {what}, at learning rate {self.lrs[at]:.3g}. Lower optimizer.lr, "
            "lengthen schedule.warmup_epochs, or set clip_norm; under precision=bfloat16 try precision=float32. This "
            "state was not offered for saving, the last checkpoint is good"
        )


def _non_finite(state: State) -> Tensor:
    """How many of the model's tensors hold a NaN or an infinity; 0-dim, on the device."""
    floats = [t for t in state.model.state_dict().values() if t.is_floating_point()]
    return torch.stack([~t.isfinite().all() for t in floats]).sum()


@dataclass
class Pace:
    """At which step the next report is due: every ``steps`` steps, or about every ``seconds`` seconds.

    Seconds become a number of steps at each report, from rank 0's clock, which all ranks have agreed on: so they
    stop at the same step and never ask one another in between.  The first step is reported alone, to learn its cost;
    later intervals grow tenfold at most, as the first may have been compiling.
    """

    steps: int | None
    seconds: float | None
    due: float = math.inf

    def begin(self, step: int) -> None:
        self.due = step + 1 if self.seconds else self._next_multiple(step)

    def reported(self, step: int, taken: int, seconds: float) -> None:
        """``taken`` steps up to ``step`` took ``seconds``."""
        if self.seconds:
            fitting = int(self.seconds * taken / max(seconds, 1e-9))
            self.due = step + max(1, min(fitting, 10 * taken))
        else:
            self.due = self._next_multiple(step)

    def _next_multiple(self, step: int) -> float:
        return (step // self.steps + 1) * self.steps if self.steps else math.inf

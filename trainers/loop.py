"""The training loop: a generator of reports.

    for report in fit(state, objective, data, Fit(epochs=30, schedule=Cosine(lr=1e-3))):
        print(report.step, report.metrics)

What a run does beside training (saving, evaluating, tracking, stopping early) is the body of that ``for``: while it
runs, ``state`` is whole and may be saved or read, on every rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch

from trainers.alarm import Alarm, RobustProbe
from trainers.distributed import is_main, rank, share_buffers, world
from trainers.interval import Interval, Pace, Reading
from trainers.optimizers import Cosine
from trainers.state import State
from trainers.step import Step
from trainers.types import Batch, Objective


class TrainingData(Protocol):
    """What the loop needs of data.  ``batch_size``: examples a step, over all ranks."""

    @property
    def batch_size(self) -> int: ...

    def steps(self) -> int: ...

    def train(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1, device: str | torch.device = "cpu"
    ) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Fit:
    """How to train.  ``report_steps`` or ``report_seconds``, or neither (None or 0) for reports at epoch ends
    only.

    ``each_step`` gives reports every step's metrics too.  ``accumulate`` splits each rank's share of a step into that
    many micro-batches.  ``loss_ceiling``: a mean loss above it counts as diverged (ln K is chance level).
    """

    epochs: int
    schedule: Cosine
    seed: int = 0
    accumulate: int = 1
    clip_norm: float | None = None
    bf16: bool = False
    channels_last: bool = False
    compile: bool = False
    report_steps: int | None = None
    report_seconds: float | None = None
    each_step: bool = False
    loss_ceiling: float = 1e3
    alarm: Alarm = Alarm()

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("clip_norm", "loss_ceiling"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value:g} must be above 0, or null for none")
        for setting, every in (("report.steps", self.report_steps), ("report.seconds", self.report_seconds)):
            if every is not None and not every >= 0:
                raise ValueError(f"{setting}={every:g} must not be negative; 0 switches it off")
        if self.report_steps and self.report_seconds:
            raise ValueError(
                f"report.steps={self.report_steps} and report.seconds={self.report_seconds:g} are both set: keep one, "
                "set the other to 0"
            )
        if self.schedule.warmup_epochs >= self.epochs and self.schedule.warmup_epochs:
            raise ValueError(
                f"schedule.warmup_epochs={self.schedule.warmup_epochs:g} leaves nothing of epochs={self.epochs}: "
                "shorten the warm-up or train longer"
            )


@dataclass(frozen=True)
class Report:
    """The run at optimizer step ``step``; the same on every rank.

    ``kind``: ``"report"``, ``"epoch"`` (an epoch has just ended) or ``"end"`` (the last, with its ``reason``).
    ``metrics``: means since the report before, over all ranks.  ``seconds``: training time since then, without what
    the reader of that report took.  ``images``: seen since step 0, by all ranks.  ``each_step``: every metric at
    the steps up to ``step``, where asked for.  ``good``: false at the end of an epoch in which the alarm rang and
    ends the run: do not save then; the state goes back to the last good epoch, which the ``"end"`` tells of.
    """

    step: int
    epoch: float
    kind: str
    metrics: dict[str, float]
    seconds: float
    images: int
    each_step: dict[str, tuple[float, ...]] = field(default_factory=dict)
    reason: str = ""
    good: bool = True


def fit(
    state: State, objective: Objective, data: TrainingData, settings: Fit, probe: RobustProbe | None = None
) -> Iterator[Report]:
    """Train ``state`` from where it stands to the end of ``settings.epochs``, as the reports are asked for.

    ``probe`` is what ``settings.alarm`` listens to, at each epoch's end.  Errors: ``ValueError`` at once for settings
    that cannot work; ``interval.Diverged`` at the next report point after the loss or the weights left the finite
    numbers.  torch's global generators are seeded in every step.
    """
    if settings.alarm.policy != "off" and probe is None:
        raise ValueError(f"alarm.policy={settings.alarm.policy!r} needs a probe to listen to: give one, or set 'off'")
    share = data.batch_size // world()
    if settings.accumulate > share:
        raise ValueError(
            f"accumulate={settings.accumulate} is more than the {share} examples a step that each of {world()} ranks "
            "has: lower it, or raise the batch size"
        )
    if data.steps() < 1:
        raise ValueError(f"batch_size={data.batch_size} leaves no whole step an epoch: lower it, or give more data")
    return _reports(state, objective, data, settings, probe)


def _reports(
    state: State, objective: Objective, data: TrainingData, settings: Fit, probe: RobustProbe | None
) -> Iterator[Report]:
    step = _step(state, objective, settings)
    interval, pace, steps = Interval(), Pace(settings.report_steps, settings.report_seconds), data.steps()
    pace.begin(state.step)

    while state.epoch < settings.epochs and not state.ended:
        state.model.train(objective.mode == "train")
        interval.restart()
        for batch in data.train(state.epoch, state.step_in_epoch, rank(), world(), step.device):
            epoch = state.epoch + state.step_in_epoch / steps
            lr = settings.schedule(epoch, settings.epochs)
            interval.add(step(batch, epoch, lr), lr)
            state.step += 1
            state.trained += 1
            state.step_in_epoch += 1
            if state.step >= pace.due and state.step_in_epoch < steps:
                reading = _read(interval, state, settings)
                pace.reported(state.step, len(interval.rows), reading.seconds)
                yield _report(state, data, settings, "report", reading)
                state.model.train(objective.mode == "train")  # the reader may have evaluated
                interval.restart()

        if state.step_in_epoch != steps:
            raise RuntimeError(f"the data gave {state.step_in_epoch} of the {steps} steps they promised for an epoch")
        reading = _read(interval, state, settings)
        pace.reported(state.step, len(interval.rows), reading.seconds)
        state.epoch, state.step_in_epoch = state.epoch + 1, 0

        probed: dict[str, float] = {}
        rings = ""
        if probe is not None and settings.alarm.policy != "off":
            probed, rings = settings.alarm.listen(state, probe)
        if rings and is_main():
            settings.alarm.warn(rings)
        stops = bool(rings) and settings.alarm.policy == "stop"
        yield _report(state, data, settings, "epoch", reading, probed, good=not stops)
        if stops:
            state.recall()
            state.ended = f"stopped after epoch {state.good_epoch}, the last good one: {rings}"

    reason = state.ended or f"finished {settings.epochs} epochs"
    yield Report(state.step, state.step / steps, "end", {}, 0.0, state.step * data.batch_size, reason=reason)


def _read(interval: Interval, state: State, settings: Fit) -> Reading:
    """What came since the last report; afterwards all ranks hold one network, and one average, to look at.

    Sharing at report points is enough: nothing that rank 0 trains, averages or saves depends on others' buffers.
    """
    reading = interval.read(state, settings.loss_ceiling)
    for network in (state.model,) if state.ema is None else (state.model, state.ema.module):
        share_buffers(network)
    return reading


def _step(state: State, objective: Objective, settings: Fit) -> Step:
    return Step(
        state,
        objective,
        seed=settings.seed,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        bf16=settings.bf16,
        channels_last=settings.channels_last,
        compile=settings.compile,
    )


def _report(
    state: State,
    data: TrainingData,
    settings: Fit,
    kind: str,
    reading: Reading,
    probed: dict[str, float] | None = None,
    good: bool = True,
) -> Report:
    return Report(
        step=state.step,
        epoch=state.step / data.steps(),
        kind=kind,
        metrics=reading.means() | (probed or {}),
        seconds=reading.seconds,
        images=state.step * data.batch_size,
        each_step=reading.each_step if settings.each_step else {},
        good=good,
    )

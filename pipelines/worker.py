"""What each Ray worker does: build, continue from the last checkpoint, train, and leave a result."""

import json
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device

from pipelines import gauges, parts
from pipelines.errors import Failure, Misuse
from pipelines.tracking import holding
from pipelines.tracking.journal import Journal
from trainers import losses, models, optimizers, state
from trainers.distributed import agree, is_main, merge, rank, total, world
from trainers.evaluation.accuracy import CleanAccuracy, RobustAccuracy
from trainers.evaluation.cost import standard_steps
from trainers.evaluation.gradients import GradientNorms
from trainers.interval import Diverged
from trainers.loop import Report, fit
from trainers.memory import keep_freed
from trainers.types import Batch, Objective

STATE, RUN, MODEL = "state.safetensors", "run.json", "model"


def worker(tracking_uri: str, config: dict[str, Any]) -> dict[str, Any]:
    """The outcome, or ``{"failed": message}`` for what another try cannot mend, so that Ray does not try again."""
    try:
        return Run(tracking_uri, config).train()
    except (Misuse, Diverged, ValueError) as error:
        if world() > 1 and not isinstance(error, Diverged):
            raise  # perhaps this rank's alone, and the others wait for it: Ray must end them
        return {"failed": str(error), "traceback": traceback.format_exc()}


class Run:
    """One worker's part of a training: what it builds, and what it does with each report."""

    def __init__(self, tracking_uri: str, config: dict[str, Any]) -> None:
        self.tracking_uri, self.config = tracking_uri, config
        self.device = get_device()
        torch.set_num_threads(config["threads"])
        keep_freed()
        self.data = parts.data(config)
        self.objective: Objective = parts.objective(config)
        model = parts.network(config, self.data, self.objective.second_order).to(self.device)
        optimizer = optimizers.build(model, parts.optimizer(config), config["optimizer"].get("weight_decay", 0.0))
        self.state = state.State.create(model, optimizer, config["ema"], config["digest"])
        self.seconds, self.images, self.saved_at, self.warned = 0.0, 0, time.monotonic(), False
        self.outcome: dict[str, Any] | None = None
        self.probed: dict[str, float] = {}
        self.board = config["board"]
        pending = self._restore()
        self.journal = self._journal(pending) if is_main() else None
        self._mark(holding.FROM, self.state.step)
        if self.journal is not None:
            self.journal.hurry()  # an attempt that dies soon is one that was paid for

    def _journal(self, pending: list[Any]) -> Journal:
        run_id, spool = self.config["run_id"], self.config["spool"]
        return Journal(self.tracking_uri, run_id, spool, pending, notify=self.board.notice.remote)

    def _mark(self, name: str, step: int) -> None:
        """For what the training cost: how far this attempt came, and when."""
        if self.journal is not None:
            self.journal.log(holding.now(), {name: step})

    def train(self) -> dict[str, Any]:
        """Five hops from the command: this loop, ``fit``, the step, the objective, its loss."""
        attack = parts.attack(self.config, "alarm")
        held_out = self.config["alarm"]["examples"]

        def probe(model: torch.nn.Module) -> float:
            found: dict[str, float] = {}
            for evaluate in (CleanAccuracy(), RobustAccuracy(attack)):
                batches = self.data.held_out("validation", rank(), world(), self.device, held_out)
                found.update(evaluate(model, batches))
            self.probed = {f"probe_{name}": value for name, value in found.items()}
            return found["robust_accuracy"]

        settings = parts.settings(self.config, len(self.data.classes))
        try:
            for report in fit(self.state, self.objective, self.data, settings, probe):
                self._log(report)
                if report.good and (self._save_now() or report.kind == "epoch"):
                    self._save(report)
            return self._finish(report)
        finally:
            if self.journal is not None:
                self.journal.close(5.0)

    def _log(self, report: Report) -> None:
        self.seconds += report.seconds
        if self.journal is None or report.kind == "end":
            return
        for i, step in enumerate(range(report.step - _length(report.each_step) + 1, report.step + 1)):
            if report.each_step:
                self.journal.log(step, {name: values[i] for name, values in report.each_step.items()})
        extra = {name: value for name, value in report.metrics.items() if name not in report.each_step}
        extra |= self.probed if report.kind == "epoch" else {}
        self._show()
        rate = (report.images - self.images) / report.seconds if report.seconds else 0.0
        self.images = report.images
        self.journal.log(report.step, {**extra, "epoch": report.epoch, "images_per_second": rate})
        self._mark(holding.REACHED, report.step)
        self.board.post.remote({"epoch": report.epoch, "epochs": self.config["epochs"], "metrics": report.metrics})
        if report.metrics.get("catastrophic_overfitting"):
            self.board.notice.remote(
                f"catastrophic overfitting: PGD accuracy on held-out images is "
                f"{report.metrics['probe_robust_accuracy']:.3f} after epoch {report.epoch:.0f}"
            )

    def _show(self) -> None:
        """For who watches the cluster."""
        assert self.journal is not None
        run = self.config["name"] or self.config["recipe"]
        gauges.show(gauges.TRACKING_BACKLOG, len(self.journal.pending()), run=run)
        if "probe_robust_accuracy" in self.probed:
            gauges.show(gauges.ROBUST_ACCURACY, self.probed["probe_robust_accuracy"], run=run)

    def _save_now(self) -> bool:
        """Whether a checkpoint is due inside an epoch; every rank comes to the same answer."""
        due = time.monotonic() - self.saved_at > 60 * self.config["checkpoint"]["minutes"]
        notice = ray.train.get_preemption_info() is not None
        first, self.warned = notice and not self.warned, notice  # once a notice: the grace period is short
        return first or agree(float(due)) > 0

    def _save(self, report: Report, model: bool = False, outcome: dict[str, Any] | None = None) -> None:
        """Give Ray a checkpoint: the state, the metrics not confirmed by the tracking server, the model at the end."""
        self.saved_at = time.monotonic()
        if self.warned:
            self._mark(holding.NOTICE, report.step)
        metrics = {**report.metrics, **self.probed, "epoch": report.epoch, "step": report.step}
        if self.journal is None:
            ray.train.report(metrics)
            return
        folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
        try:
            state.save(self.state, folder / STATE)
            if model:
                models.save(self.state.network, folder / MODEL)
            about = {
                "pending": self.journal.pending(),
                "seconds": self.seconds,
                "outcome": outcome,
                "probed": self.probed,
            }
            (folder / RUN).write_text(json.dumps(about))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
        except OSError as error:
            raise Failure(
                f"storage={self.config['storage']}: a checkpoint could not be written ({error}); free some space "
                "there, or see to its rights; the checkpoint before it is kept"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _restore(self) -> list[Any]:
        """Continue from the newest checkpoint that is whole; the metrics that were still on their way."""
        newest = ray.train.get_checkpoint()
        if newest is None:
            return []
        older = [reported.checkpoint for reported in ray.train.get_all_reported_checkpoints()]
        for checkpoint in [newest, *(c for c in reversed(older) if c != newest)]:
            try:
                return self._continue(checkpoint)
            except state.Damaged as error:
                damage = error
                self.board.notice.remote(f"{error}. Trying the checkpoint before it")
        raise state.Damaged(
            f"no checkpoint of this run is whole ({damage}); remove its folder in storage={self.config['storage']}, or "
            "give another name, and it starts anew"
        )

    def _continue(self, checkpoint: ray.train.Checkpoint) -> list[Any]:
        with checkpoint.as_directory() as folder:
            try:
                about = json.loads((Path(folder) / RUN).read_text())
            except (OSError, ValueError) as error:
                raise state.Damaged(f"{checkpoint.path}/{RUN} is missing or not whole ({error})") from error
            state.load(self.state, Path(folder) / STATE)
        self.seconds, self.outcome = about["seconds"], about["outcome"]
        self.probed = about.get("probed", {})
        self.images = self.state.step * self.data.batch_size
        if is_main():
            self.board.notice.remote(f"continuing from step {self.state.step}, epoch {self.state.epoch}")
        return list(about["pending"])

    def _finish(self, report: Report) -> dict[str, Any]:
        """Evaluate what is shipped (the averaged weights, if there are any) on the test split, and save it all.

        A run that had come this far already answers what it found then.
        """
        if self.outcome is not None:
            return self.outcome
        metrics = self._evaluate()
        outcome = {
            "metrics": metrics,
            "cost": self._cost(),
            "validation": {name.removeprefix("probe_"): value for name, value in self.probed.items()},
            "ended": report.reason,
            "steps": report.step,
            "skipped": dict(self.data.skipped if self.data.replicated else merge(self.data.skipped)),
        }
        if self.journal is not None:
            self.journal.log(report.step, metrics)
            self._mark(holding.REACHED, report.step)
            self.journal.flush(5.0)
        self._save(report, model=True, outcome=outcome)
        return outcome

    def _evaluate(self) -> dict[str, float]:
        limit = self.config["evaluation"]["examples"]
        attack = parts.attack(self.config, "evaluation")
        seen = 0

        def batches() -> Iterator[Batch]:
            nonlocal seen
            seen = 0
            for batch in self.data.held_out("test", rank(), world(), self.device, limit):
                seen += len(batch.x)
                yield batch

        found: dict[str, float] = {}
        for evaluate in (CleanAccuracy(), RobustAccuracy(attack), GradientNorms()):
            found.update(evaluate(self.state.network.eval(), batches()))
        return found | {"test_examples": float(total(torch.tensor(seen)))}

    def _cost(self) -> dict[str, Any]:
        batch = next(iter(self.data.held_out("test", device=self.device, limit=2)))
        each = standard_steps(self.objective, self.state.model, batch.x, losses.hard(batch.y))
        return {
            "standard_steps_a_step": each,
            "standard_steps": each * self.state.trained,
            "train_seconds": self.seconds,
            "images_per_second": self.state.trained * self.data.batch_size / max(self.seconds, 1e-9),
            "workers": world(),
            "device": str(self.device.type),
        }


def _length(each_step: Mapping[str, tuple[float, ...]]) -> int:
    return len(next(iter(each_step.values()))) if each_step else 0

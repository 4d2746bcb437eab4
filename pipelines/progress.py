"""What a person sees while a run goes on: rank 0 leaves its last report with an actor, the driver draws it."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = ("loss", "accuracy", "adversarial_accuracy", "penalty", "edge_distance", "probe")
EVERY_SECONDS = 60.0
"""How long a log stays silent inside an epoch."""


class Board:
    """The actor: the newest report of one run, and every notice."""

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}
        self.notices: list[str] = []

    def post(self, report: Mapping[str, Any]) -> None:
        self.report = dict(report)

    def notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    def read(self) -> tuple[dict[str, Any], list[str]]:
        return self.report, self.notices


def board() -> Any:
    """A new actor handle; it takes no CPU from the training, and stays off nodes that may be taken away."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor: Any = ray.remote(Board)
    return actor.options(num_cpus=0, scheduling_strategy=here).remote()


@contextmanager
def display(handle: Any, title: str, console: Console) -> Iterator[None]:
    """Draw the board until the block ends: a bar on a terminal, a line an epoch elsewhere."""
    done = threading.Event()
    thread = threading.Thread(target=_draw, args=(handle, title, console, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def _draw(handle: Any, title: str, console: Console, done: threading.Event) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.1f}/{task.total:.0f} epochs"),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(title, total=1, metrics="starting workers")
        said, epoch, spoke = 0, 0, time.monotonic()
        while True:
            last = done.wait(0.5)
            try:
                report, notices = _read(handle)
            except TimeoutError:  # a busy cluster answers later
                if last:
                    return
                continue
            except Exception:  # the cluster is going: the run's own error is the one to show
                return
            for text in notices[said:]:
                console.print(f"[yellow]note[/] {text}", soft_wrap=True)
            said = len(notices)
            if report:
                bars.update(task, completed=report["epoch"], total=report["epochs"], metrics=line(report["metrics"]))
                ended = int(report["epoch"]) > epoch
                if not console.is_terminal and (ended or time.monotonic() - spoke > EVERY_SECONDS):
                    epoch, spoke = int(report["epoch"]), time.monotonic()
                    at = f"{epoch}" if ended else f"{report['epoch']:.2f}"
                    console.print(f"{title}  epoch {at}/{report['epochs']}  {line(report['metrics'])}", soft_wrap=True)
            if last:
                return


def _read(handle: Any, within: float = 5.0) -> tuple[dict[str, Any], list[str]]:
    """Errors: ``TimeoutError``; Ray's own when the actor is dead or the cluster gone."""
    import ray

    found: tuple[dict[str, Any], list[str]] = ray.get(handle.read.remote(), timeout=within)
    return found


def line(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics)

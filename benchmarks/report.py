"""What every benchmark shares: rows of results, the hardware and versions behind them, a table and a JSON file."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

READING = "value: median of n; spread: interquartile range of the n; goal: what it should be."
PACKAGES = ("torch", "torchvision", "timm", "numpy", "ray", "mlflow")


def hardware() -> str:
    """Processor and cores this process may use, threads of torch, and the GPU where there is one."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {cores} cores, {torch.get_num_threads()} torch threads{gpu}"


def versions() -> dict[str, str]:
    """Installed versions of the packages a number can depend on, and Python's."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


class Rows:
    """Collects results and closes with a table and, if asked, a JSON file of one object a row.

    A row's ``value`` is the median of ``values`` unless it is given; ``spread`` is their interquartile range;
    ``interval`` is [low, high] where a benchmark has a confidence interval or a range to give.  ``reading`` says how to
    read the table, for a benchmark whose values are something else.
    """

    def __init__(self, title: str, reading: str = READING) -> None:
        self.title, self.reading, self.rows = title, reading, list[dict[str, Any]]()
        self._date = datetime.datetime.now(datetime.UTC).date().isoformat()
        self._hardware, self._versions = hardware(), versions()

    def add(
        self,
        what: str,
        values: Sequence[float] | None = None,
        value: float | None = None,
        n: int | None = None,
        spread: float | None = None,
        interval: tuple[float, float] | None = None,
        goal: str | None = None,
        note: str = "",
    ) -> None:
        """``goal`` is said beside the value, such as ``"<= 1.05"``; ``note`` says what the row is."""
        if values is None and value is None:
            raise ValueError(f"row {what!r} has neither values nor a value")
        if values is not None:
            value = statistics.median(values) if value is None else value
            low, high = quartiles(values)
            spread, n = (high - low if spread is None else spread), (len(values) if n is None else n)
        row: dict[str, Any] = {"what": what, "value": value, "n": 1 if n is None else n, "spread": spread}
        if interval is not None:
            row["interval"] = list(interval)
        row |= {"goal": goal, "note": note}
        row |= {"hardware": self._hardware, "versions": self._versions, "date": self._date}
        self.rows.append(row)

    def close(self, path: str | Path | None = None) -> None:
        """Prints the table and how to read it; writes ``path`` when given."""
        print(f"\n{self.title}")
        print(table(self.rows))
        print(f"{self.reading}\n{self._date}, {self._hardware}")
        print(", ".join(f"{name} {version}" for name, version in self._versions.items()))
        if path is not None:
            Path(path).write_text(json.dumps(self.rows, indent=2) + "\n")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Aligned columns; empty ones are left out."""
    header = ["what", "value", "n", "spread", "interval", "goal", "note"]
    cells = [[_cell(row.get(name)) for name in header] for row in rows]
    kept = [i for i in range(len(header)) if any(line[i] for line in cells)]
    lines = [[line[i] for i in kept] for line in [header, *cells]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(kept))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "[" + ", ".join(_cell(v) for v in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parser(
    description: str, quick: str = "under 3 minutes on 2 cores, with fewer repetitions"
) -> argparse.ArgumentParser:
    """The options every benchmark takes."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--quick", action="store_true", help=quick)
    options.add_argument("--json", metavar="FILE", help="also write the rows there")
    return options

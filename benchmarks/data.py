"""What feeding real images costs: a training step on CIFAR-10 (JPEG) against the same step on one constant batch.

    python benchmarks/data.py --data PATH [--quick] [--json FILE] [--device cpu|cuda]

``step_real_over_synthetic`` has the goal: time of a step fed by ``Resident`` (flip, shift, mixup, smoothing) over
the time of the same step fed by a batch that is already there.  They alternate in short runs, so that a busy machine
slows both.
"""

import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser
from trainers.data.augment import Augment
from trainers.data.mixing import Mixing
from trainers.data.parquet import Parquet
from trainers.data.photographic import Photographic
from trainers.data.resident import Resident
from trainers.data.streaming import Streaming
from trainers.losses import cross_entropy

BATCH = 64


def network(device: torch.device) -> nn.Module:
    """ResNet-18 with a 3×3 stem of stride 1 and no pooling, as for 32-pixel images."""
    model = timm.create_model("resnet18", num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model.to(device)


class Trained:
    """One optimizer step, timed with whatever it takes to get the batch."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device, self.model = device, network(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def step(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        cross_entropy(self.model(x), y).mean().backward()
        self.optimizer.step()

    def seconds(self, batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> float:
        """Seconds a step, over ``steps`` steps in a row."""
        self._wait()
        began = time.perf_counter()
        for x, y in itertools.islice(batches, steps):
            self.step(x, y)
        self._wait()
        return (time.perf_counter() - began) / steps

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def endless(data: Resident | Streaming, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in itertools.count():
        for batch in data.train(epoch, device=device):
            yield batch.x, batch.y


def constant(data: Resident | Streaming, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = next(endless(data, device))
    return itertools.repeat((x, y))


def ratios(trained: Trained, real: Iterator, synthetic: Iterator, rounds: int, steps: int) -> list[tuple[float, float]]:
    """(real, synthetic) seconds a step in alternating rounds, the first of which goes first in turn."""
    trained.seconds(synthetic, steps), trained.seconds(real, steps)
    found = []
    for turn in range(rounds):
        pair = {}
        for name, batches in (("real", real), ("synthetic", synthetic))[:: 1 if turn % 2 else -1]:
            pair[name] = trained.seconds(batches, steps)
        found.append((pair["real"], pair["synthetic"]))
    return found


def add_ratio(rows: Rows, what: str, pairs: list[tuple[float, float]], note: str, goal: str | None = None) -> None:
    """The ratio of the medians; spread and interval are of the rounds' own ratios."""
    real, synthetic = zip(*pairs, strict=True)
    each = [r / s for r, s in pairs]
    value = statistics.median(real) / statistics.median(synthetic)
    rows.add(what, each, value=value, interval=(min(each), max(each)), goal=goal, note=note)


def timed(make: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    made = make()
    return time.perf_counter() - began, made


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    shared = os.environ.get("HOLDFAST_SHARED")
    options.add_argument("--data", default=f"{shared}/data/cifar10-jpeg" if shared else None, help="parquet folder")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = options.parse_args()
    if arguments.data is None or not Path(arguments.data).exists():
        print(f"skipped: no data at {arguments.data}; give --data FOLDER with CIFAR-10 in parquet layout")
        return
    device = torch.device(arguments.device)
    rounds, steps = (6, 2) if arguments.quick else (20, 5)
    if device.type == "cuda":
        rounds, steps = rounds * 2, steps * 40
    rows = Rows("data: what feeding real images costs (cifar10-jpeg, resnet18 at 32 px, batch 64)")
    source, mixing = Parquet(arguments.data), Mixing(mixup_alpha=0.8, label_smoothing=0.1)

    seconds, resident = timed(lambda: Resident(source, BATCH, validation=1000, augment=Augment(), mixing=mixing))
    assert isinstance(resident, Resident)
    images = sum(map(resident.size, ("train", "validation", "test")))
    rows.add("resident_open_seconds", value=seconds, note=f"reads and decodes all {images} images")
    batches = endless(resident, device)
    drawn = [1000 * timed(lambda: next(batches))[0] for _ in range(200)]
    rows.add("resident_batch_milliseconds", drawn, note="flip, shift, mixup, smoothing; batch of 64")

    trained = Trained(device)
    synthetic = constant(resident, device)
    pairs = ratios(trained, endless(resident, device), synthetic, rounds, steps)
    rows.add("step_synthetic_milliseconds", [1000 * s for _, s in pairs], note="the step itself")
    add_ratio(rows, "step_real_over_synthetic", pairs, "Resident", "<= 1.05")

    plain = Photographic(auto_augment=None, color_jitter=0, erasing=0, crop_pct=1.0)
    loaders = min(os.cpu_count() or 1, 16) if device.type == "cuda" else 1
    for name, transform in (("crop_flip", plain), ("randaugment", Photographic(crop_pct=1.0))):
        streaming = Streaming(
            source, BATCH, (3, 32, 32), validation=1000, transform=transform, mixing=mixing, loaders=loaders
        )
        pairs = ratios(trained, endless(streaming, device), synthetic, rounds, steps)
        add_ratio(rows, f"step_streaming_{name}_over_synthetic", pairs, f"Streaming, {loaders} loader processes")
        streaming.close()
    rows.close(arguments.json)


if __name__ == "__main__":
    main()

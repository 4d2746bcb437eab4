"""AutoAttack: ours against the authors' code, on the same networks and images, in one process, turn by turn.

    python benchmarks/autoattack.py [--data PATH] [--quick] [--json FILE] [--device cpu|cuda] [--nets N] [--n N]

``PATH`` holds CIFAR-10 in Parquet; left out, the embedded digits are used, and the rows say so.  The networks are small
(13 million multiplications an image), trained with PGD-3 adversarial training on some thousands of images, and kept in
``--cache``.

``seconds_over_reference_same_flags``: our reference mode (their order, their random numbers) over theirs.
``seconds_over_reference_fast``: our fast mode (each example its own random numbers) over theirs.
``flags_differing_in_reference_mode``: examples whose verdict is another one, of all networks.
``robust_accuracy_difference_fast``: fast minus theirs over the same examples of all networks, with its 95 % interval.
``fast_flags_differing_between_batches``: verdicts of the first network that another batch size changes in fast mode,
in float32.
``robust_accuracy_reference``: of the networks, by the authors' code.

Theirs is the package ``pyautoattack``, whose attacks are the authors' files.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser
from trainers import optimizers
from trainers.attacks.cascade import Cascade, autoattack
from trainers.attacks.pgd import PGD
from trainers.data.augment import Augment
from trainers.data.digits import Digits
from trainers.data.parquet import Parquet
from trainers.data.resident import Resident
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.exam import Given
from trainers.evaluation.intervals import paired_difference
from trainers.evaluation.prepared import prepared
from trainers.evaluation.robustness import evaluate
from trainers.loop import Fit, fit
from trainers.memory import keep_freed
from trainers.models import Normalize
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.optimizers import Cosine
from trainers.state import State
from trainers.threat import Linf, Threat

SEED, BATCH, OTHER_BATCH = 0, 32, 7


def data(path: str | None, training: int) -> Resident:
    """``training`` images to train on; the test split to attack."""
    if path is None:
        return Resident(Digits(), 64, augment=Augment(flip=0, shift=0))
    return Resident(Parquet(path), 64, augment=Augment(), validation=len(Parquet(path).split("train")) - training)


def network(images: Resident, threat: Threat, seed: int, epochs: int, cache: Path, device: torch.device) -> nn.Module:
    """Trained by PGD-3 adversarial training, or read from ``cache``."""
    key = hashlib.sha256(f"{images.digest} {images.size('train')} {threat} {seed} {epochs}".encode()).hexdigest()[:16]
    place = cache / f"autoattack-{key}.safetensors"
    torch.manual_seed(seed)
    model = small(images).to(device)
    if not place.exists():
        attack = PGD(threat, steps=3, step_size=2 / 3 * threat.eps, keep="last")
        state = State.create(model, optimizers.build(model, partial(torch.optim.AdamW, lr=3e-3), 0.05))
        settings = Fit(epochs=epochs, schedule=Cosine(lr=3e-3, warmup_epochs=0.1 * epochs), seed=seed, clip_norm=1.0)
        for report in fit(state, AdversarialTraining(attack), images, settings):
            if report.kind == "epoch":
                print(f"network {seed}: epoch {report.epoch:.0f} of {epochs}", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        save_model(model, str(place))
    load_model(model, str(place))
    return model.to(device).eval()


def small(images: Resident) -> nn.Module:
    """Five layers: 13 million multiplications for an image of 32 × 32 pixels in colour."""
    channels = images.input_size[0]
    layers: list[nn.Module] = [Normalize(images.mean, images.std)]
    for width, stride in ((32, 1), (64, 2), (64, 2), (128, 1)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.GELU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, len(images.classes)))


@dataclass(frozen=True)
class Budget:
    """AutoAttack standard, in all arms; anything but its authors' ``steps`` (of APGD and FAB) and ``queries`` (of
    Square) is for trying the script."""

    threat: Threat
    steps: int = 100
    queries: int = 5000

    def cascade(self, classes: int) -> Cascade:
        members: list[Any] = list(autoattack(self.threat, "standard", classes).members)
        amounts = [{"queries": self.queries} if m.name == "square" else {"steps": self.steps} for m in members]
        return Cascade([replace(m, **amount) for m, amount in zip(members, amounts, strict=True)])


def theirs(net: nn.Module, x: Tensor, y: Tensor, classes: int, budget: Budget) -> Tensor:
    """Robust flags by the authors' code."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(net, norm=budget.threat.norm, eps=budget.threat.eps, seed=SEED, device=x.device)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = budget.steps
    attack.square.n_queries = budget.queries
    x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    with torch.no_grad():
        return (net(x_adv).argmax(1) == y).cpu()


def reference(net: nn.Module, x: Tensor, y: Tensor, cascade: Cascade, classes: int) -> Tensor:
    """The same by ours, in their order and with their random numbers."""
    return ours(net, x, y, cascade, classes, Effort(SEED, BATCH, reference=True))


def fast(net: nn.Module, x: Tensor, y: Tensor, cascade: Cascade, classes: int, batch_size: int = BATCH) -> Tensor:
    """Each example with its own random numbers, whatever the batch."""
    return ours(net, x, y, cascade, classes, Effort(SEED, batch_size, every=1 if x.device.type == "cpu" else 5))


def ours(net: nn.Module, x: Tensor, y: Tensor, cascade: Cascade, classes: int, effort: Effort) -> Tensor:
    exam = Given(x, y.cpu(), torch.arange(len(x)))
    return evaluate(cascade, prepared(net, x[:8]), exam, classes, effort).robust


@dataclass(frozen=True)
class Turn:
    """One network: the robust flags of each arm, and its seconds; ``other_batch``: those of fast mode in batches of 7,
    of the first network only."""

    flags: dict[str, Tensor]
    seconds: dict[str, float]
    other_batch: Tensor | None

    @property
    def n(self) -> int:
        return len(self.flags["theirs"])

    def only(self, one: str, other: str) -> int:
        """Examples that are robust by ``one`` and not by ``other``."""
        return int((self.flags[one] & ~self.flags[other]).sum())

    def __str__(self) -> str:
        arms = (f"{arm} {share(flags):.3f} in {self.seconds[arm]:.1f} s" for arm, flags in self.flags.items())
        return ", ".join(arms)


def share(flags: Tensor) -> float:
    return float(flags.double().mean())


def turn(net: nn.Module, x: Tensor, y: Tensor, classes: int, budget: Budget, first: bool) -> Turn:
    """Each arm in a process of its own: what ours asks of the allocator would hold for theirs too."""
    cascade = budget.cascade(classes)
    arms: dict[str, tuple[bool, Callable[[], Tensor]]] = {
        "theirs": (False, partial(theirs, net, x, y, classes, budget)),
        "reference": (True, partial(reference, net, x, y, cascade, classes)),
        "fast": (True, partial(fast, net, x, y, cascade, classes)),
    }
    if first:
        arms["theirs_kept"] = (True, partial(theirs, net, x, y, classes, budget))
        arms["other_batch"] = (True, partial(fast, net, x, y, cascade, classes, OTHER_BATCH))
    flags, seconds = {}, {}
    for arm, (kept, run) in arms.items():
        flags[arm], seconds[arm] = apart(run, kept)
    return Turn(flags, seconds, flags.pop("other_batch", None))


def apart(run: Callable[[], Tensor], kept: bool) -> tuple[Tensor, float]:
    """What ``run`` gives and its seconds, in a new process; ``kept``: freed memory stays with it, as an evaluator has
    it."""
    context = torch.multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_timed, args=(run, kept, torch.get_num_threads(), there))
    process.start()
    try:
        flags, seconds = here.recv()
    finally:
        process.join()
    return torch.tensor(flags), seconds


def _timed(run: Callable[[], Tensor], kept: bool, threads: int, out: Any) -> None:
    torch.set_num_threads(threads)
    if kept:
        keep_freed()
    began = time.perf_counter()
    flags = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    out.send((flags.tolist(), time.perf_counter() - began))


def add(rows: Rows, turns: Sequence[Turn]) -> None:
    first, n = turns[0], sum(one.n for one in turns)
    for row, arm, goal in (("same_flags", "reference", "<= 0.75"), ("fast", "fast", "<= 0.6")):
        ratios = [one.seconds[arm] / one.seconds["theirs"] for one in turns]
        note = f"{first.seconds[arm]:.0f} s for {first.n} images"
        rows.add(f"seconds_over_reference_{row}", ratios, goal=goal, note=note)
    if "theirs_kept" in first.seconds:
        ratio, note = first.seconds["fast"] / first.seconds["theirs_kept"], "both keep what is freed; 1 network"
        rows.add("seconds_over_reference_fast_same_allocator", [ratio], note=note)
    differing = sum(one.only("reference", "theirs") + one.only("theirs", "reference") for one in turns)
    rows.add("flags_differing_in_reference_mode", value=differing, n=n, goal="0")
    gained, lost = (sum(one.only(*pair) for one in turns) for pair in (("fast", "theirs"), ("theirs", "fast")))
    rows.add(
        "robust_accuracy_difference_fast",
        value=(gained - lost) / n,
        n=n,
        interval=paired_difference(gained, lost, n),
        goal="interval inside 0.02",
        note=f"{len(turns)} networks, {gained + lost} verdicts differ",
    )
    if first.other_batch is not None:
        differing = int((first.other_batch != first.flags["fast"]).sum())
        note = f"{BATCH} against {OTHER_BATCH}"
        rows.add("fast_flags_differing_between_batches", value=differing, n=first.n, goal="0", note=note)
    rows.add("robust_accuracy_reference", [share(one.flags["theirs"]) for one in turns], note="of the networks")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__, quick="under 10 minutes on 2 cores, with fewer images")
    options.add_argument("--data", help="CIFAR-10 in Parquet; left out: the embedded digits")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--nets", type=int, default=3, help="networks (3)")
    options.add_argument(
        "--n", type=int, help="images a network (128; quick: 64 of the first network, 24 of the others)"
    )
    options.add_argument("--epochs", type=int, help="of training (10; quick: 6)")
    options.add_argument("--steps", type=int, default=Budget.steps, help="fewer only to try the script")
    options.add_argument("--queries", type=int, default=Budget.queries, help="fewer only to try the script")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "holdfast" / "benchmarks")
    given = options.parse_args(arguments)
    device, epochs = torch.device(given.device), given.epochs or (6 if given.quick else 10)
    counts = [given.n or (64 if given.quick else 128)] + [given.n or (24 if given.quick else 128)] * (given.nets - 1)
    threat = Linf(4 / 255) if given.data else Linf(0.1)
    images = data(given.data, 10000 if given.quick else 30000)
    classes = len(images.classes)
    budget = Budget(threat, given.steps, given.queries)
    title = f"AutoAttack, {'CIFAR-10' if given.data else 'digits'}, {threat.norm} {threat.eps:.4g}, batches of {BATCH}"
    rows, turns = Rows(title), list[Turn]()
    for seed, count in enumerate(counts):
        net = network(images, threat, seed, epochs, given.cache, device)
        held = list(images.held_out("test", device=device, limit=count))
        x, y = torch.cat([b.x for b in held]).contiguous(), torch.cat([b.y for b in held])
        turns.append(turn(net, x, y, classes, budget, first=seed == 0))
        print(f"network {seed}: {turns[-1]}", flush=True)
    add(rows, turns)
    rows.close(given.json)


if __name__ == "__main__":
    main()

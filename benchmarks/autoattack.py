"""AutoAttack: ours against the authors' code, on the same networks and images, in one process, turn by turn.

    python benchmarks/autoattack.py [--data PATH] [--quick] [--json FILE] [--device cpu|cuda] [--nets N] [--n N]

``PATH`` holds CIFAR-10 in Parquet; left out, the embedded digits are used, and the rows say so.  The networks are small
(13 million multiplications an image), trained with PGD-3 adversarial training on some thousands of images, and kept in
``--cache``.

``seconds_over_reference_same_flags``: our reference mode (their order, their random numbers) over theirs.
``seconds_over_reference_fast``: our fast mode (each example its own random numbers) over theirs.
``flags_differing_in_reference_mode``: examples whose verdict is another one, of all networks.
``robust_accuracy_difference_fast``: fast minus theirs over the same examples of all networks, with its 95 % interval.
``fast_flags_differing_between_batches``: verdicts that another batch size changes in fast mode, in float32.

Theirs is the package ``pyautoattack``, whose attacks are the authors' files.
"""

import hashlib
import sys
import time
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser
from trainers import optimizers
from trainers.attacks.cascade import Cascade, autoattack
from trainers.attacks.pgd import PGD
from trainers.attacks.square import Square
from trainers.data.augment import Augment
from trainers.data.digits import Digits
from trainers.data.parquet import Parquet
from trainers.data.resident import Resident
from trainers.evaluation.attack_run import Effort
from trainers.evaluation.intervals import paired_difference
from trainers.evaluation.prepared import prepared
from trainers.evaluation.robustness import evaluate
from trainers.loop import Fit, fit
from trainers.models import Normalize
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.optimizers import Cosine
from trainers.state import State
from trainers.threat import Linf, Threat
from trainers.types import Batch

SEED, BATCH = 0, 32


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


def theirs(net: nn.Module, x: Tensor, y: Tensor, cascade: Cascade, classes: int, queries: int) -> Tensor:
    """Robust flags by the authors' code."""
    from pyautoattack import AutoAttack

    threat = cascade.threat
    attack = AutoAttack(net, norm=threat.norm, eps=threat.eps, seed=SEED, device=x.device)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
    attack.square.n_queries = queries
    x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    with torch.no_grad():
        return (net(x_adv).argmax(1) == y).cpu()


def reference(net: nn.Module, x: Tensor, y: Tensor, cascade: Cascade, classes: int) -> Tensor:
    """The same by ours, in their order and with their random numbers."""
    model = prepared(net, x[:8])
    whole = [Batch(x, y, torch.arange(len(x), device=x.device))]
    return evaluate(cascade, model, lambda: whole, classes, Effort(SEED, BATCH, reference=True)).robust


def fast(net: nn.Module, x: Tensor, y: Tensor, cascade: Cascade, classes: int, batch_size: int = BATCH) -> Tensor:
    """Each example with its own random numbers, whatever the batch."""
    whole = [Batch(x, y, torch.arange(len(x), device=x.device))]
    effort = Effort(SEED, batch_size, every=1 if x.device.type == "cpu" else 5)
    return evaluate(cascade, prepared(net, x[:8]), lambda: whole, classes, effort).robust


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", help="CIFAR-10 in Parquet; left out: the embedded digits")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--nets", type=int, help="networks (3)")
    options.add_argument(
        "--n", type=int, help="images a network (128; quick: 64 of the first network, 24 of the others)"
    )
    options.add_argument("--epochs", type=int, help="of training (10; quick: 6)")
    options.add_argument("--queries", type=int, default=5000, help="of Square, in all arms (5000)")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "holdfast" / "benchmarks")
    given = options.parse_args()
    device, nets = torch.device(given.device), given.nets or 3
    counts = [given.n or (64 if given.quick else 128)] + [given.n or (24 if given.quick else 128)] * (nets - 1)
    threat = Linf(4 / 255) if given.data else Linf(0.1)
    images = data(given.data, 10000 if given.quick else 30000)
    classes = len(images.classes)
    cascade = autoattack(threat, "standard", classes)
    cascade = Cascade([Square(threat, given.queries) if m.name == "square" else m for m in cascade.members])
    title = f"AutoAttack, {'CIFAR-10' if given.data else 'digits'}, {threat.norm} {threat.eps:.4g}, batches of {BATCH}"
    rows = Rows(title)

    seconds: dict[str, list[float]] = {"theirs": [], "reference": [], "fast": []}
    differing = other_batch = gained = lost = n = 0
    robust = []
    for seed, count in enumerate(counts):
        net = network(images, threat, seed, given.epochs or (6 if given.quick else 10), given.cache, device)
        held = list(images.held_out("test", device=device, limit=count))
        x, y = torch.cat([b.x for b in held]).contiguous(), torch.cat([b.y for b in held])
        flags = {}
        for arm, run in {
            "theirs": lambda net=net, x=x, y=y: theirs(net, x, y, cascade, classes, given.queries),
            "reference": lambda net=net, x=x, y=y: reference(net, x, y, cascade, classes),
            "fast": lambda net=net, x=x, y=y: fast(net, x, y, cascade, classes),
        }.items():
            began = time.perf_counter()
            flags[arm] = run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[arm].append(time.perf_counter() - began)
        print(
            f"network {seed}: "
            + ", ".join(
                f"{arm} {float(f.double().mean()):.3f} in {seconds[arm][-1]:.1f} s" for arm, f in flags.items()
            ),
            flush=True,
        )
        if seed == 0:
            other_batch = int((fast(net, x, y, cascade, classes, 7) != flags["fast"]).sum())
        differing += int((flags["reference"] != flags["theirs"]).sum())
        gained += int((flags["fast"] & ~flags["theirs"]).sum())
        lost += int((~flags["fast"] & flags["theirs"]).sum())
        n += count
        robust.append(float(flags["theirs"].double().mean()))
    for row, arm, goal in (("same_flags", "reference", "<= 0.75"), ("fast", "fast", "<= 0.6")):
        ratios = [ours / other for ours, other in zip(seconds[arm], seconds["theirs"], strict=True)]
        rows.add(
            f"seconds_over_reference_{row}", ratios, goal=goal, note=f"{seconds[arm][0]:.0f} s for {counts[0]} images"
        )
    rows.add("flags_differing_in_reference_mode", value=differing, n=n, goal="0")
    rows.add(
        "robust_accuracy_difference_fast",
        value=(gained - lost) / n,
        n=n,
        interval=paired_difference(gained, lost, n),
        goal="interval inside 0.02",
        note=f"{nets} networks, {gained + lost} verdicts differ",
    )
    rows.add("fast_flags_differing_between_batches", value=other_batch, n=counts[0], goal="0", note="32 against 7")
    rows.add("robust_accuracy_reference", robust, note="of the networks")
    rows.close(given.json)


if __name__ == "__main__":
    main()

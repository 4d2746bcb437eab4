"""What a robust training step costs: our objectives against the usual PGD-3 loop, in seconds and in passes.

    python benchmarks/training_cost.py [--quick] [--json FILE] [--device cpu|cuda] [--batch N] [--threads N]

ResNet-18 with GELU and a stem for 32-pixel images, float32, eager, AdamW, BatchNorm frozen in every arm (the mode
GradNorm is published with), so that the arms differ in their passes only.  They take turns, in one process, each
round starting with another; a ratio is taken within a round, and its median over the rounds is the row's value.  On a
CPU torch has one thread unless told: threads that wait for one another on a shared machine time its other users.

The peer is PGD-3 adversarial training as common training code writes it: ``.backward()`` in every attack step with
live parameters, whose gradients are thrown away; a forward to score the result; then the training step.

Read it so: ``*_over_peer_pgd3`` has the goals; ``*_standard_steps`` is one step's floating-point operations over those
of a standard step, which has 3 forwards' worth, and holds on any hardware.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser
from trainers import optimizers
from trainers.attacks.fgsm import FGSM
from trainers.attacks.pgd import PGD
from trainers.evaluation.cost import standard_steps
from trainers.models.second_order import prepare
from trainers.objectives.adversarial_training import AdversarialTraining
from trainers.objectives.gradient_regularized import GradientRegularized
from trainers.objectives.standard import Standard
from trainers.objectives.trades import TRADES
from trainers.penalties.gradient_norm import GradientNorm
from trainers.state import State
from trainers.step import Step
from trainers.threat import Linf
from trainers.types import Batch, Objective

EPS, STEP_SIZE, LR = 8 / 255, 2 / 255, 1e-4
GOALS = {"gradnorm": "<= 0.65", "pgd3": "<= 0.75"}


def network(device: torch.device) -> nn.Module:
    """ResNet-18 with GELU, a 3×3 stem of stride 1 and no pooling."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10, act_layer="gelu")
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model.to(device).eval()


def batch_of(n: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, 32, 32, generator=generator)
    y = torch.randint(10, (n,), generator=generator)
    return Batch(x.to(device), y.to(device), torch.arange(n, device=device))


def objectives() -> dict[str, Objective]:
    threat = Linf(EPS)
    pgd = PGD(threat, steps=3, step_size=STEP_SIZE, keep="last")
    return {
        "standard": Standard(mode="eval"),
        "fgsm": AdversarialTraining(FGSM(threat), mode="eval"),
        "gradnorm": GradientRegularized(GradientNorm(threat), smoothing=0.1),
        "pgd3": AdversarialTraining(pgd, mode="eval"),
        "trades3": TRADES(pgd, mode="eval"),
    }


def ours(objective: Objective, batch: Batch) -> Callable[[], object]:
    model = network(batch.x.device)
    if objective.second_order:
        prepare(model)  # as ``models.create`` does
    step = Step(State.create(model, optimizers.build(model, torch.optim.AdamW, 0.05)), objective)
    return lambda: step(batch, epoch=10.0, lr=LR)


class PeerPGD3:
    """PGD-3 adversarial training as it is usually written."""

    second_order, mode = False, "eval"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, keys: object = None, epoch: object = None) -> Any:
        x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(3):
            x_adv = x_adv.detach().requires_grad_()
            F.cross_entropy(model(x_adv), y).backward()
            x_adv = x_adv.detach() + STEP_SIZE * cast(Tensor, x_adv.grad).sign()
            x_adv = torch.minimum(torch.maximum(x_adv, x - EPS), x + EPS).clamp(0, 1)
        with torch.no_grad():
            scored = model(x_adv).argmax(1).eq(y).float().mean()
        model.zero_grad()
        return F.cross_entropy(model(x_adv), y), {"adversarial_accuracy": scored}


def peer(batch: Batch) -> Callable[[], object]:
    """The peer's training step around it."""
    model, objective = network(batch.x.device), PeerPGD3()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)

    def step() -> None:
        loss, _ = objective(model, batch.x, batch.y)
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Of one step, over ``repeats`` in a row."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(repeats):
        step()
    wait()
    return (time.perf_counter() - began) / repeats


def arms(batch: Batch) -> dict[str, Callable[[], object]]:
    return {name: ours(objective, batch) for name, objective in objectives().items()} | {"peer_pgd3": peer(batch)}


def measure(batch: Batch, rounds: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of a step, one value a round."""
    steps, device = arms(batch), batch.x.device
    for step in steps.values():
        seconds(step, 1 if device.type == "cpu" else 5, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        names = list(steps)[turn % len(steps) :] + list(steps)[: turn % len(steps)]
        for name in names:
            times[name].append(seconds(steps[name], repeats, device))
    return times


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--batch", type=int, help="examples a step: 16 on a CPU, 256 on a GPU")
    options.add_argument("--threads", type=int, default=1, help="of torch on a CPU (1)")
    given = options.parse_args()
    torch.set_num_threads(given.threads)

    device = torch.device(given.device)
    gpu = device.type == "cuda"
    batch = batch_of(given.batch or (256 if gpu else 16), device)
    rounds, repeats = (8 if given.quick else 24), (10 if gpu else 1)
    times = measure(batch, rounds, repeats)
    few, model = batch_of(2, device), network(device)
    costs = {
        name: standard_steps(o, model, few.x, few.y) for name, o in (objectives() | {"peer_pgd3": PeerPGD3()}).items()
    }

    rows = Rows(f"A training step on {device}, ResNet-18 GELU, {len(batch.x)} images of 32×32, float32")
    for name in ("gradnorm", "pgd3", "fgsm", "trades3", "standard"):
        ratios = [mine / his for mine, his in zip(times[name], times["peer_pgd3"], strict=True)]
        note = f"{costs[name] / costs['peer_pgd3']:.3f} by floating-point operations"
        rows.add(f"{name}_over_peer_pgd3", ratios, goal=GOALS.get(name), note=note)
    for name, values in times.items():
        rows.add(f"{name}_seconds", values)
        rows.add(f"{name}_standard_steps", value=costs[name], note="by floating-point operations")
    rows.close(given.json)


if __name__ == "__main__":
    main()

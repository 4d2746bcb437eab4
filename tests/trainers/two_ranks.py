"""Started by torchrun on every rank: what a rank finds goes to ``OUT/<rank>.pt``."""

import sys
from collections import Counter
from pathlib import Path

import torch

from tests.trainers import tiny
from trainers import distributed
from trainers.alarm import Alarm
from trainers.interval import Diverged
from trainers.loop import fit
from trainers.step import Step
from trainers.types import Batch

BATCH = Batch(*(t[:8] for t in tiny.Data().everything()))


def gradients(name: str, accumulate: int, compile: bool = False) -> dict[str, torch.Tensor]:
    half = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
    state = tiny.state(tiny.net().eval(), ema=None)
    step = Step(state, tiny.objectives()[name], accumulate=accumulate, compile=compile, backend="aot_eager")
    run = step._checked_gradients if compile else step._gradients
    metrics = run(Batch(*(t[half] for t in BATCH)), 0.3)
    found = {n: p.grad for n, p in state.model.named_parameters()}
    return found | {"loss": distributed.total(metrics["loss"]) / distributed.world()}


def trained() -> dict[str, object]:
    """Weights, and reports whose times must agree although each rank has a clock of its own."""
    state = tiny.state(tiny.net())
    rank = distributed.rank()
    changed = {"report_seconds": 0.005, "each_step": True, "alarm": Alarm("warn")}
    objective = tiny.objectives()["adversarial_training"]
    reports = list(fit(state, objective, tiny.Data(), tiny.settings(**changed), probe=lambda model: 0.5 - 0.1 * rank))
    told = [(r.step, r.kind, r.seconds, r.metrics, r.each_step) for r in reports]
    return {"weights": state.weights(), "reports": told}


def looked_at() -> list[dict[str, torch.Tensor]]:
    """Every parameter and buffer, of the model and of its average, as the reader of each report finds them."""
    state, objective = tiny.state(tiny.net()), tiny.objectives(mode="train")["adversarial_training"]
    reports = fit(state, objective, tiny.Data(), tiny.settings(report_steps=2, alarm=Alarm("warn")), tell_probe)
    return [{n: t.clone() for n, t in state.weights().items()} for _ in reports]


PROBED: list[torch.Tensor] = []


def tell_probe(model: torch.nn.Module) -> float:
    PROBED.append(torch.cat([b.flatten().double() for b in model.buffers()]))
    return 0.5


def diverged() -> str:
    """Only rank 1's half holds a NaN: both must hear of it at the same step."""

    class Half(tiny.Data):
        def train(self, epoch, start=0, rank=0, world=1, device="cpu"):
            for batch in super().train(epoch, start, rank, world, device):
                yield batch._replace(x=batch.x * torch.nan) if rank == 1 else batch

    try:
        list(fit(tiny.state(tiny.net()), tiny.objectives()["standard"], Half(), tiny.settings(report_steps=2)))
    except Diverged as error:
        return str(error)
    return "did not diverge"


def main(out: Path) -> None:
    torch.set_num_threads(1)
    device = distributed.init("cpu")
    rank = distributed.rank()
    found = {
        "device": str(device),
        "world": distributed.world(),
        "main": distributed.is_main(),
        "agreed": distributed.agree(float(10 + rank)),
        "total": distributed.total(torch.tensor([1.0, float(rank)])),
        "gradients": {(name, n): gradients(name, n) for name in tiny.objectives() for n in (1, 2)},
        "compiled": {name: gradients(name, 2, compile=True) for name in ("standard", "gradient_regularized")},
        "trained": trained(),
        "diverged": diverged(),
        "looked_at": looked_at(),
        "probed": PROBED,
        "merged": dict(distributed.merge(Counter({"both.jpg": 1 + rank, f"{rank}.jpg": 5}))),
    }
    torch.save(found, out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

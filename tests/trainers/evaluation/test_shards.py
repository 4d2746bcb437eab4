"""Probes over two real processes that hold unequal shares of the examples."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from trainers.attacks.pgd import PGD
from trainers.evaluation.accuracy import CleanAccuracy, RobustAccuracy
from trainers.evaluation.gradients import GradientNorms
from trainers.threat import Linf
from trainers.types import Batch

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3)).double()
x = torch.rand(11, 1, 4, 4, dtype=torch.float64)
y, keys = model(x).argmax(1), torch.arange(11)
y[4] = (y[4] + 1) % 3

def measure(*shares):
    batches = [Batch(x[a:b], y[a:b], keys[a:b]) for a, b in shares]
    probes = CleanAccuracy(), RobustAccuracy(PGD(Linf(0.05), steps=3)), GradientNorms()
    return dict(item for probe in probes for item in probe(model, batches))

rank = int(sys.argv[1])
alone = measure((0, 11))
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
for mine in ([[(0, 5), (5, 7)], [(7, 11)]], [[], [(0, 4), (4, 11)]]):
    together = measure(*mine[rank])
    assert together.keys() == alone.keys()
    for name, value in together.items():
        assert abs(value - alone[name]) < 1e-12, (name, value, alone[name])
dist.destroy_process_group()
print(sorted(alone.items()))
"""


def test_every_rank_reports_the_mean_over_all_examples(tmp_path):
    """7 and 4 examples, then none and 11; a mean of the ranks' means would be another number."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    store = (tmp_path / "store").as_uri()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), store],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=120) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    for process, (_, errors) in zip(ranks, printed, strict=True):
        if process.returncode:
            pytest.fail(errors)
    assert printed[0][0] == printed[1][0]
    assert "('clean_accuracy', 0.909" in printed[0][0]

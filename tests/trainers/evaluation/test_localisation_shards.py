"""Localisation over two real processes that hold unequal shares, one of them none."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from trainers.evaluation.localisation import GradientMap, Localisation, swept
from trainers.types import Batch

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 3)).double()
x, y, keys = torch.rand(11, 1, 8, 8, dtype=torch.float64), torch.arange(11) % 3, 100 - torch.arange(11)
sides = torch.rand(11, 4, dtype=torch.float64) * torch.tensor([2, 2, 4, 4]) + torch.tensor([0, 0, 4, 4])
scores = Localisation(GradientMap(sigma=1.0), {int(key): box[None] for key, box in zip(keys, sides)})

def measure(*shares):
    batches = [Batch(x[a:b], y[a:b], keys[a:b]) for a, b in shares]
    overlaps = scores.overlaps(model, batches, "validation")
    return dict(scores(model, batches)), dict(scores.shares(overlaps)), swept(overlaps, 0.3)

rank = int(sys.argv[1])
alone = measure((0, 11))
assert 0 < alone[0]["max_box_accuracy_v2"] < 1 and alone[2].keys == frozenset(keys.tolist()), alone
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
for mine in ([[(0, 5), (5, 7)], [(7, 11)]], [[], [(0, 4), (4, 11)]]):
    assert measure(*mine[rank]) == alone, (measure(*mine[rank]), alone)
dist.destroy_process_group()
"""


def test_two_ranks_with_unequal_shares_score_as_one(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    store = (tmp_path / "store").as_uri()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), store], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=120)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    for process, errors in zip(ranks, told, strict=True):
        assert process.returncode == 0, errors

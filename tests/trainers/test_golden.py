"""The first losses of each objective, committed as text: a change of the mathematics cannot pass unseen.

After a change that is meant: ``PYTHONPATH=. python tests/trainers/test_golden.py`` writes them anew.
"""

from pathlib import Path

import pytest
import torch

from tests.trainers import tiny
from trainers.loop import fit
from trainers.types import Batch

GOLDEN = Path(__file__).with_name("golden")


class Exact(tiny.Data):
    """In float64, where another order of summation does not show."""

    def train(self, *args, **options):
        for batch in super().train(*args, **options):
            yield Batch(batch.x.double(), batch.y.double() if self.soft else batch.y, batch.keys)


def curve(name: str, mode: str, soft: bool) -> list[float]:
    """Losses of 6 steps, read in float32 by the loop: 7 digits."""
    state = tiny.state(tiny.net().double(), factory=torch.optim.SGD, momentum=0.9)
    settings = tiny.settings(report_steps=1, accumulate=2, clip_norm=1.0)
    reports = fit(state, tiny.objectives(mode)[name], Exact(soft=soft), settings)
    return [next(reports).metrics["loss"] for _ in range(6)]


CASES = {
    f"{name}_{mode}_{'soft' if soft else 'hard'}": (name, mode, soft)
    for name in tiny.objectives()
    for mode, soft in (("eval", True), ("train", False))
}


@pytest.mark.parametrize("case", CASES)
def test_losses_are_the_committed_ones(case):
    committed = [float(line) for line in (GOLDEN / f"{case}.txt").read_text().split()]
    assert curve(*CASES[case]) == pytest.approx(committed, rel=2e-6)


def test_no_two_cases_have_the_same_losses_and_no_file_is_left_over():
    assert {p.stem for p in GOLDEN.iterdir()} == CASES.keys()
    assert len({p.read_text() for p in GOLDEN.iterdir()}) == len(CASES)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case, arguments in CASES.items():
        (GOLDEN / f"{case}.txt").write_text("".join(f"{loss:.7g}\n" for loss in curve(*arguments)))

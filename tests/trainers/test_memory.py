"""Freed memory stays with the process where glibc can be asked for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainers.memory import keep_freed

FAULTS = """
import resource, torch
from trainers.memory import keep_freed
if {kept}:
    keep_freed()
for _ in range(40):  # the heap has grown to what is needed before the count begins
    torch.ones(12_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_pages_are_asked_for_once():
    def faults(kept: bool) -> int:
        command = [sys.executable, "-c", FAULTS.format(kept=kept)]
        return int(subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=True).stdout)

    assert faults(True) < faults(False) / 4


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed()

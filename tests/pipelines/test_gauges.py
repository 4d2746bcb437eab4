"""What Prometheus sees: gauges on the metrics port of a real Ray."""

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

from tests.pipelines.ports import free_ports

PROGRAM = """
import sys, ray
from pipelines import gauges

ray.init(num_cpus=1, include_dashboard=False, _metrics_export_port=int(sys.argv[1]), logging_level=40)

@ray.remote
class Worker:
    def show(self):
        gauges.show(gauges.ROBUST_ACCURACY, 0.5, run="mine")
        gauges.show(gauges.ROBUST_ACCURACY, 0.75, run="mine")
        gauges.show(gauges.TRACKING_BACKLOG, 3, run="mine")

worker = Worker.remote()
ray.get(worker.show.remote())
gauges.show(gauges.TRIALS, 2, search="till", state="running")
print("shown", flush=True)
sys.stdin.read()
"""


def test_gauges_of_workers_and_driver_are_exported() -> None:
    (port,) = free_ports(1)
    environment = {**os.environ, "RAY_metrics_report_interval_ms": "200", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", PROGRAM, str(port)]
    wanted = {"ray_holdfast_robust_accuracy{": 0.75, "ray_holdfast_tracking_backlog{": 3, "ray_holdfast_trials{": 2}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "shown\n"
            deadline, found = time.monotonic() + 60, {}
            while found != wanted and time.monotonic() < deadline:
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                    lines = page.read().decode().splitlines()
                    found = {
                        name: float(line.split()[-1]) for name in wanted for line in lines if line.startswith(name)
                    }
                time.sleep(0.2)
        finally:
            process.stdin.close()  # type: ignore[union-attr]
    assert found == wanted

"""What `holdfast submit` adds, and whether it tells the truth.  python benchmarks/submit.py [--quick] [--json FILE]

``seconds_submit_to_entrypoint``: from the start of `holdfast submit backend=ray` to the first line of the command,
minus the same of `ray job submit` on the same Ray head; whole processes, taking turns.  ``seconds_once_adds``: what the
lease adds on Kubernetes, from the start of `python -m k8s.once` to the command's first line, against a real API server.
``wrong_exit_codes``: of `holdfast submit` over the endings of benchmarks/endings.py.  ``seconds_to_notice_the_end``:
from when another watch saw a job's end, or its end by Ray's clock, until that process has ended.  Needs
tests/k8s/controlplane/build, etcd, and ../shared.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import endings
from benchmarks.endings import HOLDFAST
from benchmarks.report import Rows, parser


def main() -> None:
    args = parser(__doc__).parse_args()
    from tests.k8s import cluster
    from tests.k8s.head import Head
    from tests.k8s.plane import until

    rows = Rows("holdfast submit")
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as name, Head() as head:
        folder = Path(name)
        until(lambda: head.ready, 120)
        added = list(entrypoints(head, folder, 3 if args.quick else 10))
        rows.add("seconds_submit_to_entrypoint", [ours - bare for ours, bare in added], goal="<= 1.5")
        rows.add("ray_job_submit_seconds", [bare for _, bare in added], note="bare, the same head")
        on_ray = list(endings.on_ray(head, folder))
        plane = cluster.start(folder)
        try:
            cluster.install(plane, cluster.definitions())
            rows.add("seconds_once_adds", list(leases(plane, folder, 3 if args.quick else 10)), note="Kubernetes")
            on_kubernetes = [*endings.whole(plane, head, folder, args.quick), *endings.recorded(plane)]
        finally:
            plane.stop()
    found = on_ray + on_kubernetes
    wrong = [each for each in found if each.code != each.right]
    print("\n".join(f"{each.what}: {each.code}, not {each.right}" for each in wrong), flush=True)
    rows.add("wrong_exit_codes", value=len(wrong), n=len(found), goal="0", note="both back-ends")
    for what, some in (("RayJobs", on_kubernetes), ("Ray's Jobs API", on_ray)):
        seconds = [each.seconds for each in some if each.seconds is not None]
        rows.add("seconds_to_notice_the_end", seconds, interval=(min(seconds), max(seconds)), goal="<= 3", note=what)
    rows.close(args.json)


def entrypoints(head: Any, folder: Path, pairs: int) -> Iterator[tuple[float, float]]:
    """``(ours, bare)``, seconds each."""
    program = folder / "holdfast"
    program.write_text(f"#!/bin/bash\ndate +%s.%N > {folder}/$HOLDFAST_JOB\n")
    program.chmod(0o755)
    binaries = Path(sys.executable).parent
    path = f"{folder}:{binaries}:{os.environ['PATH']}"

    def seconds(command: list[str], job: str) -> float:
        began = time.time()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "RAY_AUTH_MODE": "disabled"})
        while not (folder / job).exists() or not (folder / job).read_text():
            time.sleep(0.01)
        return float((folder / job).read_text()) - began

    for i in range(pairs + 1):
        ours, bare = f"ours-{i}", f"bare-{i}"
        settings = ["backend=ray", f"address={head.url}", f"name={ours}", f"env.PATH={path}"]
        submit = [HOLDFAST, "submit", "--no-wait", *settings, "--", "train", f"seed={i}"]
        shell = f"date +%s.%N > {folder}/{bare}"
        plain = [str(binaries / "ray"), "job", "submit", "--address", head.url, "--no-wait", "--", "bash", "-c", shell]
        both = [(submit, ours), (plain, bare)]
        taken = {job: seconds(command, job) for command, job in (both if i % 2 else both[::-1])}
        if i:  # the first finds no file in memory
            yield taken[ours], taken[bare]


def leases(plane: Any, folder: Path, n: int) -> Iterator[float]:
    """Seconds from the wrapper's start to the command's."""
    from tests.k8s.cluster import accounts

    namespace = endings.fresh(plane)
    accounts(plane, namespace)
    env = {**os.environ, "KUBECONFIG": str(plane.kubeconfig_for(namespace, "holdfast-job"))}
    env["HOLDFAST_NAMESPACE"] = namespace
    for i in range(n + 1):
        at = folder / f"lease-{i}"
        began = time.time()
        words = ["-m", "k8s.once", f"job-{i}", "--", "bash", "-c", f"date +%s.%N > {at}"]
        subprocess.run([sys.executable, *words], check=True, env=env, capture_output=True)
        if i:
            yield float(at.read_text()) - began


if __name__ == "__main__":
    main()

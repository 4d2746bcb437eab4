"""What `holdfast submit` adds, and whether it tells the truth.  python benchmarks/submit.py [--quick] [--json FILE]

``seconds_submit_to_entrypoint``: from the start of `holdfast submit backend=ray` to the first line of the command,
minus the same of `ray job submit` on the same Ray head; whole processes, taking turns.  ``seconds_once_adds``: what the
lease adds on Kubernetes, from the start of `python -m k8s.once` to the command's first line, against a real API server.
``wrong_exit_codes``: of endings whose code is known: every recorded life of a RayJob, played on a real API server, also
with that server restarted, with a job deleted, with a record that the command left; and on a real Ray head every code,
a stop and a lost head.  ``seconds_to_notice_the_end``: from when another watch saw a job's end, or its end by Ray's
clock, until `submit` has its exit code.  Needs tests/k8s/controlplane/build, etcd, and ../shared.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser

SPEED = 20.0
"""How much faster than recorded a life is played."""
Endings = list[tuple[str, int | None, int, float | None]]
"""``(what, its code, what it should be, seconds to notice)``."""


def main() -> None:
    args = parser(__doc__).parse_args()
    from tests.k8s import cluster
    from tests.k8s.head import Head
    from tests.k8s.plane import until

    rows = Rows("holdfast submit")
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as name:
        folder = Path(name)
        with Head(cpus=2) as head:
            until(lambda: head.ready, 120)
            added = list(entrypoints(head, folder, 3 if args.quick else 10))
            rows.add("seconds_submit_to_entrypoint", [ours - bare for ours, bare in added], goal="<= 1.5")
            rows.add("ray_job_submit_seconds", [bare for _, bare in added], note="bare, the same head")
            on_ray = of_ray(head, folder)
        plane = cluster.start(folder)
        try:
            cluster.install(plane, cluster.definitions())
            rows.add("seconds_once_adds", list(leases(plane, folder, 3 if args.quick else 10)), note="Kubernetes")
            on_kubernetes = of_kubernetes(plane, args.quick)
        finally:
            plane.stop()
    found = on_ray + on_kubernetes
    wrong = [each for each in found if each[1] != each[2]]
    print("\n".join(f"{what}: {code}, not {right}" for what, code, right, _ in wrong), flush=True)
    rows.add("wrong_exit_codes", value=len(wrong), n=len(found), goal="0", note="both back-ends")
    for what, endings in (("RayJobs", on_kubernetes), ("Ray's Jobs API", on_ray)):
        seconds = [seconds for *_, seconds in endings if seconds is not None]
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
        submit = [str(binaries / "holdfast"), "submit", "--no-wait", *settings, "--", "train", f"seed={i}"]
        shell = f"date +%s.%N > {folder}/{bare}"
        plain = [str(binaries / "ray"), "job", "submit", "--address", head.url, "--no-wait", "--", "bash", "-c", shell]
        both = [(submit, ours), (plain, bare)]
        taken = {job: seconds(command, job) for command, job in (both if i % 2 else both[::-1])}
        if i:  # the first finds no file in memory
            yield taken[ours], taken[bare]


def of_ray(head: Any, folder: Path) -> Endings:
    from k8s.backends.ray import RayCluster
    from k8s.follow import follow
    from k8s.job import Job
    from k8s.settings import Settings

    class Shell(Job):
        @property
        def line(self) -> str:
            return self.inputs

    def ending(what: str, shell: str, right: int, meanwhile: Callable[[Any, str], None] = lambda *_: None) -> None:
        place = RayCluster(Settings(backend="ray", address=head.url, retries=1))
        job = Shell(f"end-{uuid.uuid4().hex[:8]}", ("train",), uuid.uuid4().hex, shell)
        place.start(job)
        with beside(lambda: meanwhile(place, job.name)):
            end = follow(place, job.name, quiet, quiet, 120.0)
        noticed = time.time()
        ended = (head.job(job.name) or {}).get("end_time")
        found.append((what, end.code, right, noticed - ended / 1000 if ended else None))

    def stop(place: Any, name: str) -> None:
        while place.state(name).phase != "running":
            time.sleep(0.1)
        place.cancel(name)

    def lose(place: Any, name: str) -> None:
        while not (folder / "lost").exists():
            time.sleep(0.1)
        head.kill()
        head.start()

    found: Endings = []
    for exit_code, right in ((0, 0), (1, 1), (2, 2), (3, 3), (5, 5), (42, 1)):
        ending(f"ray: exit {exit_code}", f"exit {exit_code}", right)
    ending("ray: stopped", "sleep 600", 5, stop)
    ending("ray: head lost", f"test -e {folder}/lost && exit 0; touch {folder}/lost; sleep 600", 0, lose)
    return found


def leases(plane: Any, folder: Path, n: int) -> Iterator[float]:
    """Seconds from the wrapper's start to the command's."""
    namespace = _namespace(plane)
    env = {**os.environ, "KUBECONFIG": str(plane.kubeconfig_for(namespace, "holdfast-job"))}
    env["HOLDFAST_NAMESPACE"] = namespace
    for i in range(n + 1):
        at = folder / f"lease-{i}"
        began = time.time()
        words = ["-m", "k8s.once", f"job-{i}", "--", "bash", "-c", f"date +%s.%N > {at}"]
        subprocess.run([sys.executable, *words], check=True, env=env, capture_output=True)
        if i:
            yield float(at.read_text()) - began


def of_kubernetes(plane: Any, quick: bool) -> Endings:
    from tests.k8s.test_state import ENDS
    from tests.k8s.traces import RECORDINGS

    if not RECORDINGS.is_dir():
        raise FileNotFoundError(f"{RECORDINGS}: the recorded lives lie beside the repository")
    found: Endings = []
    for scenario, (right, _) in sorted(ENDS.items()):
        found.append(_life(plane, scenario, right))
    found.append(_life(plane, "deleted-mid-run", 5))
    found.append(_life(plane, "head-pod-killed-job-ends-in-grace", 0, exit_code=0))
    found.append(_life(plane, "stopped", 3, exit_code=3))
    found.append(_life(plane, "app-failed", 2, exit_code=2))
    found.append(_life(plane, "success", 0, restart=True))
    found.append(_life(plane, "app-failed", 1, restart=True))
    found.append(_life(plane, "image-pull-fails", 1, hopeless=1.0))
    return found


def _life(
    plane: Any, scenario: str, right: int, exit_code: int | None = None, restart: bool = False, hopeless: float = 120.0
) -> tuple[str, int | None, int, float | None]:
    from k8s import record
    from k8s.backends.rayjob import RayJobs
    from k8s.follow import follow
    from k8s.job import make
    from k8s.settings import Settings
    from tests.k8s.replay import Replay
    from tests.k8s.traces import Trace

    namespace = _namespace(plane)
    os.environ["KUBECONFIG"] = str(plane.kubeconfig_for(namespace, "holdfast-submit"))
    place = RayJobs(Settings(image="registry.example/holdfast:1"))
    job = make(place.settings, ("train", "recipe=digits_standard"))
    place.start(job)
    if exit_code is not None:
        path = plane.path("coordination.k8s.io/v1", "Lease", namespace, job.name)
        note = {"metadata": {"annotations": {record.EXIT: str(exit_code)}}}
        plane.call("PATCH", path, note, "application/merge-patch+json")

    def again() -> None:
        plane.stop_api()
        plane.start_api()

    # What its own client deletes at the end is played slower: between end and deletion a submitter must look.
    speed = 5.0 if scenario in ("no-shutdown", "image-pull-fails") else SPEED
    ended = Ended(plane, namespace)
    with beside(again if restart else lambda: None):
        ends: list[Any] = []

        def wait() -> None:
            ends.append((follow(place, job.name, quiet, quiet, 120.0, hopeless), time.time()))

        following = threading.Thread(target=wait, daemon=True)
        following.start()
    with Replay(Trace(scenario), plane, namespace, job.name, speed):
        following.join(300)
    end, noticed = ends[0]
    what = f"kubernetes: {scenario}" + (f", record {exit_code}" if exit_code is not None else "")
    told = noticed - ended.at if ended.at is not None and not restart else None
    return what + (", API restarted" if restart else ""), end.code, right, told


class Ended(threading.Thread):
    """When a watch of our own first saw that a namespace's RayJob has ended or is gone."""

    def __init__(self, plane: Any, namespace: str) -> None:
        super().__init__(daemon=True)
        self.plane, self.path = plane, plane.path("ray.io/v1", "RayJob", namespace)
        self.at: float | None = None
        self.start()

    def run(self) -> None:
        from tests.k8s.plane import events

        with suppress(Exception):  # a server that is stopped: there is no time to tell then
            for event in events(self.plane.open("GET", self.path, watch="true")):
                status = event["object"].get("status") or {}
                if event["type"] == "DELETED" or status.get("jobDeploymentStatus") in ("Complete", "Failed"):
                    self.at = time.time()
                    return


def _namespace(plane: Any) -> str:
    from tests.k8s.cluster import accounts

    name = f"bench-{uuid.uuid4().hex[:8]}"
    plane.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    accounts(plane, name)
    return name


@contextmanager
def beside(do: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    yield
    thread.join(60)


def quiet(text: str) -> None:
    pass


if __name__ == "__main__":
    main()

"""Endings whose exit code is known, each a whole process of `holdfast submit`: its code, and how soon it had it."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOLDFAST = str(Path(sys.executable).parent / "holdfast")
COMMAND = ("train", "recipe=digits_standard")
SPEED = 20.0
"""How much faster than recorded a life is played."""
OVER = ("Complete", "Failed", "ValidationFailed")


@dataclass(frozen=True)
class Ending:
    """``code``: what the process exited with, ``right``: what it should.  ``seconds``: from the job's end to its own,
    None where nobody else could see the former."""

    what: str
    code: int
    right: int
    seconds: float | None


class Submit(threading.Thread):
    """`holdfast submit` in a process of its own; when it ended, and with what."""

    def __init__(self, settings: Sequence[str], command: Sequence[str] = COMMAND, **env: str) -> None:
        super().__init__(daemon=True)
        self.code, self.at = -1, 0.0
        quiet = subprocess.DEVNULL
        words = [HOLDFAST, "submit", *settings, "--", *command]
        self._process = subprocess.Popen(words, env={**os.environ, **env}, stdout=quiet, stderr=quiet)
        self.start()

    def run(self) -> None:
        self.code = self._process.wait()
        self.at = time.time()

    def end(self, seconds: float = 300.0) -> "Submit":
        self.join(seconds)
        self._process.kill()  # one that hangs has no code: -1 is always wrong
        return self


def on_ray(head: Any, folder: Path) -> Iterator[Ending]:
    """On a real Ray head, reached through a relay: every code, a stop, a cut log, an API that is away, a lost head."""
    from tests.k8s.plane import until
    from tests.k8s.relay import Relay

    program = folder / "holdfast"
    program.write_text(f"#!/bin/bash\nexec bash {folder}/$HOLDFAST_JOB.sh\n")
    program.chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    waits = f"echo begun; until test -e {folder}/NAME; do sleep 0.1; done; echo done; exit"

    def ending(what: str, script: str, right: int, meanwhile: Callable[[str], None] = lambda name: None) -> Ending:
        name = f"end-{uuid.uuid4().hex[:8]}"
        (folder / f"{name}.sh").write_text(script.replace("NAME", name))
        there = ["backend=ray", f"address={relay.url}", "retries=1"]
        submit = Submit([*there, f"name={name}", f"env.PATH={path}"], (*COMMAND, f"name={name}"))
        meanwhile(name)
        submit.end()
        ended = (head.job(name) or {}).get("end_time")
        return Ending(f"ray: {what}", submit.code, right, submit.at - ended / 1000 if ended else None)

    def running(name: str) -> None:
        until(lambda: (head.job(name) or {}).get("status") == "RUNNING", 60)

    def stop(name: str) -> None:
        running(name)
        subprocess.run([HOLDFAST, "cancel", name, "backend=ray", f"address={head.url}"], check=True)

    def cut(name: str) -> None:
        running(name)
        for _ in range(20):
            relay.cut()
            time.sleep(0.1)
        (folder / name).touch()

    def away(name: str) -> None:
        running(name)
        relay.away(5.0)
        (folder / name).touch()

    def lose(name: str) -> None:
        until(lambda: (folder / name).exists(), 60)
        head.kill()
        head.start()

    with Relay(head.dashboard) as relay:
        for exit_code, right in ((0, 0), (1, 1), (2, 2), (3, 3), (5, 5), (42, 1)):
            yield ending(f"exit {exit_code}", f"exit {exit_code}", right)
        yield ending("stopped", "sleep 600", 5, stop)
        yield ending("log cut", f"{waits} 3", 3, cut)
        yield ending("API away", f"{waits} 0", 0, away)
        yield ending("head lost", f"test -e {folder}/NAME && exit 0; touch {folder}/NAME; sleep 600", 0, lose)


def recorded(plane: Any) -> Iterator[Ending]:
    """Every recorded life of a RayJob that ends, played on a real API server: those that the operator refuses, those
    that never start, and some with a record that the command left, or a server that restarts while it is waited for.

    Two take minutes and are played beside the others: a job whose image cannot be pulled is given `HOPELESS_SECONDS`,
    and the operator's own scheduled job is gone 2 s after its end.
    """
    from k8s.record import EXIT
    from tests.k8s.plane import until
    from tests.k8s.test_state import ENDS, INVALID, PENDING
    from tests.k8s.traces import RECORDINGS, Trace

    if not RECORDINGS.is_dir():
        raise FileNotFoundError(f"{RECORDINGS}: the recorded lives lie beside the repository")

    def restart(name: str, namespace: str) -> None:
        plane.stop_api()
        plane.start_api()

    def leave(exit_code: int) -> Callable[[str, str], None]:
        note = {"metadata": {"annotations": {EXIT: str(exit_code)}}}
        kind = "application/merge-patch+json"
        return lambda name, namespace: plane.call(
            "PATCH", plane.path("coordination.k8s.io/v1", "Lease", namespace, name), note, kind
        )

    def cancel(name: str, kubeconfig: Path) -> None:
        """As soon as its status says why it does not start."""
        env = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        status = [HOLDFAST, "status", name]
        until(
            lambda: PENDING["unschedulable"] in subprocess.run(status, capture_output=True, text=True, env=env).stdout
        )
        subprocess.run([HOLDFAST, "cancel", name], check=True, capture_output=True, env=env)

    with ThreadPoolExecutor(2) as beside:
        slow = [
            beside.submit(_played, plane, Trace("image-pull-fails"), 1, speed=0.3),
            beside.submit(_played, plane, Trace("raycronjob"), 0, speed=1.0),
        ]
        for scenario, (right, _) in sorted(ENDS.items()):
            # What its own client deletes at the end is played slower: between end and deletion a submitter must look.
            yield _played(plane, Trace(scenario), right, speed=5.0 if scenario == "no-shutdown" else SPEED)
        yield _played(plane, Trace("deleted-mid-run"), 5)
        yield _played(plane, Trace("unschedulable"), 5, meanwhile=cancel, speed=1.0, pool="a10g-4")
        for case in INVALID:
            yield _played(plane, Trace("validation-failed", case), 2)
        for scenario, exit_code in (("head-pod-killed-job-ends-in-grace", 0), ("stopped", 3), ("app-failed", 2)):
            yield _played(plane, Trace(scenario), exit_code, f", record {exit_code}", leave(exit_code))
        yield from (each.result() for each in slow)
    for scenario, right in (("success", 0), ("app-failed", 1)):
        yield _played(plane, Trace(scenario), right, ", API restarted", restart)


def _played(
    plane: Any,
    trace: Any,
    right: int,
    so: str = "",
    before: Callable[[str, str], None] = lambda *_: None,
    meanwhile: Callable[[str, Path], None] = lambda *_: None,
    speed: float = SPEED,
    **settings: str,
) -> Ending:
    """``before``, of the job's name and namespace: what happens when it was created, and its life has not begun;
    ``meanwhile``, of its name and a kube config: what is done while it lives."""
    from tests.k8s.cluster import accounts
    from tests.k8s.plane import until
    from tests.k8s.replay import Replay

    name, namespace = f"life-{uuid.uuid4().hex[:8]}", fresh(plane)
    kubeconfig = accounts(plane, namespace)
    settings = {"image": "registry.example/holdfast:1", "name": name, **settings}
    submit = Submit([f"{key}={value}" for key, value in settings.items()], KUBECONFIG=str(kubeconfig))
    until(lambda: plane.call("GET", plane.path("ray.io/v1", "RayJob", namespace))["items"], 60)
    before(name, namespace)
    with Ended(plane, namespace) as ended:
        with Replay(trace, plane, namespace, name, speed):
            meanwhile(name, kubeconfig)
            submit.end()
        what = " ".join(filter(None, (trace.scenario, trace.case)))
        return Ending(f"kubernetes: {what}{so}", submit.code, right, ended.before(submit))


def whole(plane: Any, head: Any, folder: Path, quick: bool) -> Iterator[Ending]:
    """Lives that run a command on a real Ray head, with a real scheduler and job controller and KubeRay's double."""
    from tests.k8s.kubelet import Kubelet
    from tests.k8s.operator import played
    from tests.k8s.plane import until

    def cut(lives: Any, name: str) -> None:
        until(lambda: lives.runs == 1, 60)
        lives.kubelet.cut_logs()
        plane.stop_api()
        plane.start_api()
        lives.go(42)

    def lose(lives: Any, name: str) -> None:
        until(lambda: lives.runs == 1, 60)
        head.kill()
        until(lambda: lives.runs == 2, 120)
        lives.go(0)

    def cancel(lives: Any, name: str) -> None:
        until(lambda: lives.runs == 1, 60)
        env = {**os.environ, "KUBECONFIG": str(lives.kubeconfig)}
        subprocess.run([HOLDFAST, "cancel", name], check=True, env=env)

    kubelet = Kubelet(plane, folder / "pods", runs=lambda pod: not played(pod))
    try:
        yield _lived(plane, head, kubelet, folder / "cut", "log cut, API restarted", 1, cut, retries=0)
        yield _lived(plane, head, kubelet, folder / "three", "refused, retries left", 3, lambda lives, _: lives.go(3))
        yield _lived(plane, head, kubelet, folder / "cancel", "cancelled", 5, cancel)
        yield _lived(plane, head, kubelet, folder / "lose", "head lost", 0, lose)
        if not quick:  # it is given two minutes
            absent = ("registry.example/absent:1",)
            what = "an image that is not there"
            yield _lived(plane, head, kubelet, folder / "absent", what, 1, lambda *_: None, absent=absent)
    finally:
        kubelet.stop()


def _lived(
    plane: Any,
    head: Any,
    kubelet: Any,
    folder: Path,
    what: str,
    right: int,
    meanwhile: Callable[[Any, str], None],
    retries: int = 2,
    absent: Sequence[str] = (),
) -> Ending:
    from tests.k8s.lives import Lives

    name, namespace = f"life-{uuid.uuid4().hex[:8]}", fresh(plane)
    folder.mkdir()
    with Lives(folder, plane, namespace, head, kubelet, absent) as lives, Ended(plane, namespace) as ended:
        settings = {"image": absent[0] if absent else "a/b:1", "pool": "cpu", "name": name, "retries": retries}
        settings |= {f"env.{key}": value for key, value in lives.env.items()}
        words = [f"{key}={value}" for key, value in settings.items()]
        submit = Submit(words, KUBECONFIG=str(lives.kubeconfig))
        meanwhile(lives, name)
        submit.end()
        found = Ending(f"kubernetes: {what}", submit.code, right, ended.before(submit))
    for node in plane.nodes:
        plane.call("DELETE", f"/api/v1/nodes/{node}")
    plane.nodes = set()
    return found


class Ended(threading.Thread):
    """When a watch of our own first saw that a namespace's RayJob has ended or is gone."""

    def __init__(self, plane: Any, namespace: str) -> None:
        super().__init__(daemon=True)
        self._plane, self._path = plane, plane.path("ray.io/v1", "RayJob", namespace)
        self._at: float | None = None

    def __enter__(self) -> "Ended":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.join(0.1)

    def run(self) -> None:
        from tests.k8s.plane import events

        with suppress(Exception):  # a server that is stopped: there is no time to tell then
            for event in events(self._plane.open("GET", self._path, watch="true")):
                status: Mapping[str, Any] = event["object"].get("status") or {}
                if event["type"] == "DELETED" or status.get("jobDeploymentStatus") in OVER:
                    self._at = time.time()
                    return

    def before(self, submit: Submit) -> float | None:
        return submit.at - self._at if self._at is not None else None


def fresh(plane: Any) -> str:
    """A namespace."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    plane.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name

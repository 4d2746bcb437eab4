"""A cluster on which a job lives its whole life: accounts, nodes of one pool, KubeRay's part, and the command.

That command is a program of ours in place of ``holdfast``, found first on the head's PATH: it waits to be let go.
"""

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from tests.k8s.cluster import accounts, nodes
from tests.k8s.head import Head
from tests.k8s.kubelet import PROGRAMS, Kubelet
from tests.k8s.operator import Operator
from tests.k8s.plane import Plane

PROGRAM = """#!/bin/bash
echo x >> {folder}/runs
echo begun
until test -e {folder}/go; do sleep 0.1; done
echo done
exit $(cat {folder}/go)
"""


HOLDFAST = str(Path(sys.executable).parent / "holdfast")


class Submit:
    """A process of `holdfast submit`."""

    def __init__(self, words: list[str], env: dict[str, str], said: Path) -> None:
        self._said = said
        with said.open("w") as file:
            self._process = subprocess.Popen(
                [HOLDFAST, "submit", *words],
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    @property
    def lines(self) -> list[str]:
        """What it has said, and what the job wrote."""
        return self._said.read_text().splitlines()

    def kill(self) -> None:
        """SIGKILL: it has no moment left for anything."""
        self._process.kill()
        self._process.wait()

    def code(self, seconds: float = 120.0) -> int:
        return self._process.wait(seconds)


class Lives:
    """``env``: what a job of it needs; ``kubeconfig``: its submitter's.  The kubelet must leave Ray's pods alone."""

    def __init__(
        self,
        folder: Path,
        plane: Plane,
        namespace: str,
        head: Head,
        kubelet: Kubelet,
        absent_images: Collection[str] = (),
    ) -> None:
        self.folder, self.plane, self.namespace, self.kubelet = folder, plane, namespace, kubelet
        self.kubeconfig = accounts(plane, namespace)
        own = plane.kubeconfig_for(namespace, "holdfast-job", path=folder / "job.kubeconfig")
        self.env = {"PATH": f"{folder}:{PROGRAMS}", "KUBECONFIG": str(own), "HOLDFAST_NAMESPACE": namespace}
        self.env["HOLDFAST_LEASE_SECONDS"] = "24"
        program = folder / "holdfast"
        program.write_text(PROGRAM.format(folder=folder))
        program.chmod(0o755)
        nodes(plane, "head")
        nodes(plane, "cpu")
        self._operator = Operator(plane, namespace, head, absent_images=absent_images)
        self._submitters: list[Submit] = []

    def __enter__(self) -> "Lives":
        self._operator.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for each in self._submitters:
            each.kill()
        self._operator.__exit__(*error)

    def submit(self, *words: str) -> Submit:
        """A training, in a process of its own, with the rights of a submitter."""
        env = [f"env.{key}={value}" for key, value in self.env.items()]
        whole = ["image=a/b:1", "pool=cpu", *env, *words, "--", "train", "recipe=digits_standard"]
        said = self.folder / f"submit-{len(self._submitters)}"
        self._submitters.append(Submit(whole, {"KUBECONFIG": str(self.kubeconfig)}, said))
        return self._submitters[-1]

    def go(self, exit_code: int = 0) -> None:
        """Lets the command end, now and whenever it is run again."""
        (self.folder / "go.part").write_text(str(exit_code))
        (self.folder / "go.part").rename(self.folder / "go")

    @property
    def runs(self) -> int:
        """How often the command was begun."""
        path = self.folder / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

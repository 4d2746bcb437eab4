"""Is what we render taken by a real API server?  python benchmarks/render.py [--quick] [--json FILE]

Every recipe on every pool as a RayJob, every pool as a RayCluster, and a schedule of each, sent to kube-apiserver 1.36
with KubeRay's own definitions as a dry run with strict field validation.  ``manifests_rejected``: those it refuses.
Needs tests/k8s/controlplane/build, etcd, and the definitions in ../shared/schemas.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser

IMAGE = "registry.example/holdfast:0.1.0"


def main() -> None:
    args = parser(__doc__).parse_args()
    from kubernetes.client import ApiException

    from tests.k8s import cluster

    rows = Rows("Manifests against a real API server")
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as folder:
        plane = cluster.start(Path(folder))
        try:
            cluster.install(plane, cluster.definitions())
            sent, refused = 0, 0
            for what, body in manifests(args.quick):
                sent += 1
                try:
                    plane.apply([body], dryRun="All")
                except ApiException as error:
                    refused += 1
                    print(f"{what}: {error.body}", flush=True)
        finally:
            plane.stop()
    rows.add("manifests_rejected", value=refused, n=sent, goal="0", note="recipes x pools, clusters, schedules")
    rows.close(args.json)


def manifests(quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    from k8s import job as jobs
    from k8s import pools, rayjob, schedule
    from k8s.settings import Settings

    folder = Path(__file__).parents[1] / "pipelines" / "configs" / "recipe"
    recipes = sorted(path.stem for path in folder.glob("[!_]*.yaml"))
    for pool in sorted(set(pools.names()) - {"head"}):
        kept = {"namespace": "default", "queue": "gpu", "priority": "night", "secrets": ("tracking",), "team": "vision"}
        settings = Settings(image=IMAGE, pool=pool, **kept)
        yield f"raycluster {pool}", rayjob.raycluster(settings, f"shared-{pool}")
        for recipe in recipes[:2] if quick else recipes:
            command = ("train", f"recipe={recipe}", f"workers={2 * max(1, pools.load(pool).gpus)}")
            job = jobs.make(settings, command)
            yield f"{recipe} on {pool}", rayjob.rayjob(settings, job)
            for kind in (schedule.cronjob, schedule.raycronjob):
                for body in kind(settings, command, "0 3 * * 1", "Etc/UTC"):
                    yield f"{body['kind']} of {recipe} on {pool}", body


if __name__ == "__main__":
    main()

"""The benchmark of what we render: it covers every recipe and pool, each object by itself."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import render
from k8s import pools


def test_every_recipe_meets_every_pool_as_job_and_as_schedule():
    made = [body["kind"] for _, body in render.manifests(quick=False)]
    folder = Path(render.__file__).parents[1] / "pipelines" / "configs" / "recipe"
    recipes, workers = len(list(folder.glob("[!_]*.yaml"))), len(pools.names()) - 1
    counts = {kind: made.count(kind) for kind in ("RayJob", "RayCluster", "CronJob", "RayCronJob")}
    assert counts["RayJob"] == counts["CronJob"] == counts["RayCronJob"] == recipes * workers
    assert counts["RayCluster"] == workers

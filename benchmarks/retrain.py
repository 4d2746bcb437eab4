"""A look that finds nothing to do: what does it cost?  python benchmarks/retrain.py [--quick] [--json FILE]

Whole processes of ``holdfast retrain`` against a SQLite registry whose champion was made of the data, recipe and code
there are.  ``seconds_when_nothing_changed``: of the second look and those after it.  ``seconds_of_the_first_look``: it
reads every file of the set.  ``over_models``: the look's seconds over those of ``holdfast models``, which asks the same
registry and looks at no data; both in turn.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Rows, parser

ROOT = Path(__file__).parents[1]
LOOK = ("retrain", "recipe=folder_gradnorm", "data.path=images", "model.weights=null", "register_as=shop")


def main() -> None:
    args = parser(__doc__).parse_args()
    count, looks = (1_000, 3) if args.quick else (50_000, 10)
    rows = Rows("A look that finds nothing to do")
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmark-") as folder:
        images(Path(folder, "images"), count)
        champion(folder)
        first = timed(folder, *LOOK)
        seconds, others = [], []
        for _ in range(looks):
            seconds.append(timed(folder, *LOOK))
            others.append(timed(folder, "models"))
    note = f"{count:,} files, SQLite"
    rows.add("seconds_when_nothing_changed", seconds, goal="≤ 10", note=note)
    rows.add("seconds_of_the_first_look", value=first, n=1, note=note)
    rows.add("over_models", [a / b for a, b in zip(seconds, others, strict=True)], note="the same registry")
    rows.close(args.json)


def images(folder: Path, count: int) -> None:
    """Files of 2 KiB in ten classes; a look reads their bytes and does not decode them."""
    for i in range(count):
        place = folder / ("train" if i % 10 else "val") / f"class{i // 10 % 10}" / f"{i:06}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(i.to_bytes(4, "big") * 512)


def champion(folder: str) -> None:
    """A registered version made, as its tags say, of what there is."""
    from rich.console import Console

    from pipelines import compose, retrain, science
    from pipelines.retraining import due, manifest
    from pipelines.tracking import server, versions

    with contextlib.chdir(folder):
        job = retrain.understood(LOOK[1:], Console(), None)
        server.check(job.uri)
        tags = {
            due.MANIFEST: manifest.take(job.base).digest,
            "recipe_digest": compose.digest(compose.recipe(job.base)),
            "code_digest": science.digest(),
        }
        client = server.client(job.uri)
        client.create_registered_model(job.name)
        client.create_model_version(job.name, "s3://nowhere/shop", tags=tags)
        versions.point(job.uri, job.name, versions.CHAMPION, 1)


def timed(folder: str, *words: str) -> float:
    """Seconds of a ``holdfast`` process.  Errors: ``RuntimeError`` if it finds something to do."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.cli", *words]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode or (words == LOOK and "nothing to do" not in done.stdout):
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return seconds


if __name__ == "__main__":
    main()

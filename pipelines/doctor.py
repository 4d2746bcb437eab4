"""``holdfast doctor``: what is installed, reachable and missing."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.errors import Failure, Misuse, first_line

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "ray",
    "mlflow",
    "hydra-core",
    "boto3",
    "scikit-learn",
    "pyarrow",
)
GIB = 2**30

Finding = tuple[str, bool | None, str]
"""What was looked at; well (True), missing but not needed here (None) or wrong (False); what was found."""


def doctor(overrides: Sequence[str], console: Console) -> None:
    """Print every finding.  ``tracking.uri=`` and ``storage=`` look at other places than the defaults.

    Errors: ``Failure`` if something that a local training needs is wrong.
    """
    places = {
        "tracking.uri": os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///runs/mlflow.db"),
        "storage": os.environ.get("HOLDFAST_STORAGE", "runs"),
    }
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in places or not value:
            raise Misuse(f"{override}: doctor takes {' and '.join(f'{k}=VALUE' for k in places)}")
        places[key] = value

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    wrong = []
    for name, well, text in findings(places["tracking.uri"], places["storage"]):
        mark = {True: "[green]ok[/]", None: "[yellow]--[/]", False: "[red]no[/]"}[well]
        table.add_row(mark, name, text)
        if well is False:
            wrong.append(name)
    console.print(table)
    if wrong:
        raise Failure(f"wrong or missing: {', '.join(wrong)}; see the lines marked 'no'")


def findings(tracking_uri: str, storage: str) -> Iterator[Finding]:
    yield "python", True, f"{platform.python_version()} on {platform.platform(terse=True)}"
    for package in PACKAGES:
        yield package, *_attempt(lambda package=package: importlib.metadata.version(package))  # type: ignore[misc]
    yield "processors", True, f"{os.cpu_count()} cores"
    yield _gpu()
    yield _ray()
    yield "tracking.uri", *_attempt(lambda: _tracking(tracking_uri))
    yield "storage", *_attempt(lambda: _storage(storage))


def _attempt(look: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, look()
    except Exception as error:  # every failure here is a finding to print
        return False, first_line(error)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return "gpu", None, "none; training runs on the CPU"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return "gpu", True, ", ".join(names)


def _ray() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return "ray cluster", None, "RAY_ADDRESS is not set; training starts Ray on this machine"
    from pipelines import cluster

    well, text = _attempt(lambda: str(cluster.connect()) and _resources())
    return "ray cluster", well, f"{address}: {text}"


def _resources() -> str:
    import ray

    held = ray.cluster_resources()
    return f"{held.get('CPU', 0):g} CPU, {held.get('GPU', 0):g} GPU on {len(ray.nodes())} nodes"


def _tracking(uri: str) -> str:
    from pipelines.redact import redact_text
    from pipelines.tracking import server

    server.check(uri)
    return f"{redact_text(uri)} answers"


def _storage(storage: str) -> str:
    if storage.startswith("s3://"):
        from pipelines.storage import files

        found = len(files(storage).list(storage))
        return f"{storage} can be listed ({found} objects)"
    folder = Path(storage).absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise Failure(f"{folder} cannot be written to")
    return f"{storage}: {shutil.disk_usage(folder).free / GIB:.1f} GiB free"

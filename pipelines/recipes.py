"""``holdfast recipes``: what there is to choose from, one line each."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.build import nearest
from pipelines.compose import CONFIGS, choices, describe
from pipelines.errors import Misuse


def recipes(groups: list[str], folder: Path | None, console: Console) -> None:
    """Print the recipes, or the choices of the config groups named."""
    known = [path.name for path in sorted(CONFIGS.iterdir()) if path.is_dir()]
    for group in groups or ["recipe"]:
        if group not in known:
            raise Misuse(f"{group}: no such group of choices{nearest(group, known)}")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        for name, path in choices(group, folder).items():
            table.add_row(f"{group}={name}", describe(path))
        console.print(table)

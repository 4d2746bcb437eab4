"""The README and the guides, as tests read them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(kind: str) -> list[tuple[str, str]]:
    """``(page, text)`` of every block, but for those that are the content of a file (see ``files``)."""
    found = []
    for page in PAGES:
        of_files = [text for _, text in files(page)]
        texts = re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.M | re.S)
        found += [(page.name, text) for text in texts if text not in of_files]
    return found


def files(page: Path) -> list[tuple[str, str]]:
    """``(path, content)`` of the files a page shows: a path in backticks and a colon, then a block."""
    return re.findall(r"`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)^```", page.read_text(), re.M | re.S)


def write_files(folder: Path) -> None:
    """The files that the pages show, below ``folder``."""
    for page in PAGES:
        for name, text in files(page):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

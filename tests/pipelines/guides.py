"""The README and the guides, as tests read them."""

import re
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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


def write_world(place: Path) -> None:
    """The files, the small data and the weights that the guides speak of."""
    random = np.random.default_rng(0)
    jpegs = []
    for _ in range(64):
        buffer = BytesIO()
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    _parquet(place / "data" / "cifar10", jpegs)
    _folders(place / "images", jpegs)
    _tars(place / "shards", jpegs)
    write_files(place)
    _networks(place)


def _networks(place: Path) -> None:
    """The weights that the guides' evaluations take."""
    import torch
    from safetensors.torch import save_file

    from trainers import models

    scope: dict[str, Any] = {}
    exec((place / "mynets.py").read_text().replace("    net.load_state_dict", "    #"), scope)
    torch.save(scope["digits"]().state_dict(), place / "mynets.pt")
    net = models.create("resnet18", 2, (3, 32, 32), stem="standard").network
    save_file(net.state_dict(), place / "resnet18.safetensors")


def _parquet(place: Path, jpegs: list[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    place.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"image": {"bytes": jpeg, "path": None}, "label": i % 2} for i, jpeg in enumerate(jpegs)]
        pq.write_table(pa.Table.from_pylist(rows), place / f"{split}-00000-of-00001.parquet")


def _folders(place: Path, jpegs: list[bytes]) -> None:
    for split in ("train", "val"):
        for i, jpeg in enumerate(jpegs):
            path = place / split / ("cat", "dog")[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)


def _tars(place: Path, jpegs: list[bytes]) -> None:
    place.mkdir()
    for split, shard in (("train", 0), ("train", 1), ("val", 0)):
        with tarfile.open(place / f"{split}-{shard}.tar", "w") as tar:
            for i, jpeg in enumerate(jpegs):
                for name, content in ((f"{shard}{i:04}.jpg", jpeg), (f"{shard}{i:04}.cls", str(i % 2).encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, BytesIO(content))

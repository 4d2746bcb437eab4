"""Small data sets, in a folder or at S3, and the settings that read them."""

import io
from typing import Any

from PIL import Image

from pipelines import storage

FOLDER = {
    "train/cat/0.png": 0,
    "train/cat/1.png": 1,
    "train/cat/2.png": 2,
    "train/dog/0.png": 3,
    "train/dog/1.png": 4,
    "test/cat/9.png": 9,
    "test/dog/8.png": 8,
}
"""Paths, and of which picture each is."""


def png(number: int) -> bytes:
    """Pictures of one size in bytes, each another colour."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 255 - number, 100)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def fill(place: str) -> str:
    for path, number in FOLDER.items():
        storage.write(f"{place}/{path}", png(number))
    return place


def config(path: str | None, reader: str = "folder.Folder", **data: Any) -> dict[str, Any]:
    source = {"_target_": f"trainers.data.{reader}"} | ({"path": path} if path else {})
    return {"data": {"path": path, "source": source, **data}, "trust": []}

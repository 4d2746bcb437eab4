"""Which code computes: the sources that a training's numbers come from."""

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

JUDGES = ("trainers", "evaluation")


def digest(trusted: Sequence[str] = ()) -> str:
    """64 hex digits over the sources of ``trainers``, less those that only evaluate, and of the packages a user
    ``trusted``: others where a line changed, the same wherever they are installed."""
    total = hashlib.sha256()
    for name in ("trainers", *sorted(trusted)):
        total.update(_package(name))
    return total.hexdigest()


@cache
def _package(name: str) -> bytes:
    total = hashlib.sha256(name.encode())
    spec = importlib.util.find_spec(name)
    for place in map(Path, (spec.submodule_search_locations or filter(None, [spec.origin])) if spec else []):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            inside = path.relative_to(place.parent)
            if inside.parts[:2] != JUDGES:
                total.update(f"\0{inside}\0".encode())
                total.update(path.read_bytes())
    return total.digest()

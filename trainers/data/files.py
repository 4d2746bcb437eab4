"""Where bytes come from: a folder, or anything that answers the same four questions."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

MEGABYTE = 1 << 20


class Files(Protocol):
    """A tree of files by path (or URI).  ``list`` gives every file below ``prefix``, sorted, each beginning with
    ``prefix`` as given; ``open`` a seekable binary reader; ``size`` bytes.  It pickles, so that loader processes
    can open files of their own."""

    def list(self, prefix: str) -> list[str]: ...
    def open(self, path: str) -> BinaryIO: ...
    def size(self, path: str) -> int: ...
    def exists(self, path: str) -> bool: ...


@dataclass(frozen=True)
class LocalFiles:
    """Files of this machine.  Hidden files and folders are not listed; a ``prefix`` that is a file lists itself."""

    def list(self, prefix: str) -> list[str]:
        root = Path(prefix)
        if root.is_file():
            return [prefix]
        names = (p.relative_to(root) for p in root.rglob("*") if p.is_file())
        seen = (name for name in names if not any(part.startswith(".") for part in name.parts))
        return sorted(f"{prefix.rstrip('/')}/{name.as_posix()}" for name in seen)

    def open(self, path: str) -> BinaryIO:
        return Path(path).open("rb")

    def size(self, path: str) -> int:
        return Path(path).stat().st_size

    def exists(self, path: str) -> bool:
        return Path(path).exists()


def listed(files: Files, path: str, setting: str = "data.path") -> list[str]:
    """Every file below ``path``, which must exist and hold something."""
    found = files.list(path)
    if not found:
        state = "holds no files" if files.exists(path) else "does not exist"
        raise ValueError(f"{setting}={path} {state}: give the folder (or bucket prefix) that holds the data set")
    return found


def below(path: str, root: str) -> str:
    """``path`` relative to ``root``: the name that stays when a set is moved as a whole."""
    return path[len(root) :].lstrip("/") if path.startswith(root) else path


class Ranges:
    """Reads byte ranges through at most ``megabytes`` of the most recently used 1 MiB blocks.

    So near-sequential reading costs one pass over the file whatever ``files`` is, and memory stays bounded.
    Handles and blocks belong to one process: a forked or unpickled copy starts with none.
    """

    def __init__(self, files: Files, megabytes: int) -> None:
        self.files, self.megabytes = files, max(megabytes, 2)
        self._forget()

    def _forget(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._handles: OrderedDict[str, BinaryIO] = OrderedDict()
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def __getstate__(self) -> tuple[Files, int]:
        return self.files, self.megabytes

    def __setstate__(self, state: tuple[Files, int]) -> None:
        self.files, self.megabytes = state
        self._forget()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes of ``path`` from ``offset``; fewer when the file ends before."""
        if self._pid != os.getpid():
            self._inherited = self._handles
            self._forget()
        first, last = offset // MEGABYTE, (offset + size - 1) // MEGABYTE
        with self._lock:
            joined = b"".join(self._block(path, index) for index in range(first, last + 1))
        start = offset - first * MEGABYTE
        return joined[start : start + size]

    def _block(self, path: str, index: int) -> bytes:
        if (path, index) in self._blocks:
            self._blocks.move_to_end((path, index))
            return self._blocks[path, index]
        handle = self._handle(path)
        handle.seek(index * MEGABYTE)
        block = self._blocks[path, index] = handle.read(MEGABYTE)
        if len(self._blocks) > self.megabytes:
            self._blocks.popitem(last=False)
        return block

    def _handle(self, path: str) -> BinaryIO:
        if path not in self._handles:
            if len(self._handles) >= 64:
                self._handles.popitem(last=False)[1].close()
            self._handles[path] = self.files.open(path)
        self._handles.move_to_end(path)
        return self._handles[path]

    def close(self) -> None:
        """Closes this process's handles; a forked copy leaves its parent's (and their sockets) alone."""
        if self._pid == os.getpid():
            for handle in self._handles.values():
                handle.close()
        self._forget()

    __del__ = close

"""Memory of the CPU that is freed stays with the process."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30
"""Bytes: glibc takes no larger number for either."""


def keep_freed() -> bool:
    """Let glibc keep what is freed, up to a gigabyte at a time, for the next layer's activations; False without glibc.

    By default it gives large blocks back to the system, which clears each page again when it is next asked for: a
    network of small convolutions spends more time on that than on its arithmetic.  Holds for the whole process, whose
    memory then stays at its highest.
    Source: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_MMAP_THRESHOLD, _KEPT))

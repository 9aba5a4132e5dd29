"""Memory of this process: how much it is, and giving back what is free."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_MADV_DONTNEED = 4
HEAP_BYTES = 16 << 20
"""That supervisor and workers keep, each: a few shards' worth."""


def trim() -> None:
    """Hand pages that imports and loading left free back to the system (glibc; saves 3-4 MB per process)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # Another C library has no such call.
            ctypes.CDLL(None).malloc_trim(0)


def let_go_of_code() -> None:
    """Unmap the unchanged pages of libraries (Linux); what is needed again is mapped again, from the page cache.

    For a process that has imported on behalf of others: it never runs again most of what it mapped by that.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, end in list(_unchanged("/proc/self/smaps")):
            madvise(start, end - start, _MADV_DONTNEED)


def _unchanged(smaps: str) -> Iterator[tuple[int, int]]:
    """Address ranges of files mapped read-only in which no page is a private copy, in memory or swapped out."""
    span, copies = None, 0
    with open(smaps, encoding="utf-8", errors="replace") as lines:
        for words in map(str.split, lines):
            if words[0] in ("Anonymous:", "Swap:"):
                copies += int(words[1])
            elif words[0] == "VmFlags:":  # The last line of a mapping.
                if span is not None and not copies:
                    yield span
            elif not words[0].endswith(":"):
                file = len(words) > 5 and words[5].startswith("/")
                start, end = (int(address, 16) for address in words[0].split("-"))
                span, copies = (start, end) if file and words[1] in ("r--p", "r-xp") else None, 0


def pss_mb(pid: int | None = None) -> float:
    """Proportional set size of a process, this one by default, in MB; 0 where the kernel does not tell."""
    try:
        with open(f"/proc/{pid or 'self'}/smaps_rollup", encoding="ascii") as file:
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith("Pss:")), 0.0)
    except OSError:
        return 0.0

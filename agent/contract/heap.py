"""How a process keeps its memory (glibc; elsewhere nothing happens)."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MOST_MMAP = 32 << 20
"""The library takes no more."""


def keep(most: int) -> None:
    """Use freed memory again, up to `most` bytes, in place of giving it back at once: pages that come anew cost many
    times what the copy into them does, most of all on a virtual machine. In one heap, also for threads: each would else
    keep as much."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # Another C library has no such call.
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_THRESHOLD, min(most, _MOST_MMAP))
            mallopt(_M_TRIM_THRESHOLD, most)

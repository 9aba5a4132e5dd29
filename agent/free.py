"""How much memory can still be had here: the system's, or that of the control group which this process lives in."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_MB = 2**20
_ROOT = Path("/sys/fs/cgroup")


def free_mb() -> float:
    free = psutil.virtual_memory().available / _MB
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
        own = next(line for line in lines if line.startswith("0::")).removeprefix("0::").lstrip("/")
        free = min(free, left_in(_ROOT / own))
    return free


def left_in(group: Path) -> float:
    """What a control group (version 2) may still take, in MB; endless without a limit. Raises OSError, ValueError."""
    limit = (group / "memory.max").read_text(encoding="ascii").strip()
    if limit == "max":
        return float("inf")
    used = int((group / "memory.current").read_text(encoding="ascii"))
    statistics = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    cached = sum(int(line.split()[1]) for line in statistics if line.startswith("inactive_file "))
    return max(0, int(limit) - used + cached) / _MB

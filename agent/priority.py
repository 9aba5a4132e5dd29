"""Lets a candidate work, and an old worker go, only while nobody else wants the processor.

A candidate stands behind from its first moment, where the system lets it come back from there. The supervisor brings it
forward, not the process itself: on a host that is never idle, one that stands behind would hardly run to do so.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

_CAP_SYS_NICE = 1 << 23
_RLIMIT_NICE_FOR_NORMAL = 20


def can_return(status: str, rlimit_nice: int) -> bool:
    """May a process leave SCHED_IDLE again? By capability or RLIMIT_NICE (sched(7)); `status`: /proc/self/status."""
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) & _CAP_SYS_NICE) or rlimit_nice >= _RLIMIT_NICE_FOR_NORMAL


def may_step_back() -> bool:
    """Could a child of this process be brought forward again?"""
    if sys.platform != "linux":
        return False
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return False
    return can_return(status, resource.getrlimit(resource.RLIMIT_NICE)[0])


def step_back() -> None:
    """Let this process run only when a processor is idle, until somebody brings it forward."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def step_forward(pid: int) -> None:
    """Let it run like everybody again; nothing happens if it has ended."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))

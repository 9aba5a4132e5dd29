"""Lets a candidate work, and an old worker go, only while nobody else wants the processor.

A candidate stands behind from its first moment, where the system lets it come back from there. The supervisor brings it
forward, not the process itself: on a host that is never idle, one that stands behind would hardly run to do so.

SCHED_IDLE alone is not enough. Linux hands even that class its share of 0.3 % some day, and takes the processor back at
the next tick only: 4 ms at 250 Hz, in which a request waits. So one that works behind also yields, many times a tick.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_CAP_SYS_NICE = 1 << 23
_RLIMIT_NICE_FOR_NORMAL = 20
_TURN_S = 0.0003
"""Between two yields: far below the tick."""


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
            os.sched_yield()  # Who waits here already goes first.


def arm() -> None:
    """Before `give_way`, in this process or the one that forks it: an alarm calls `sched_yield` itself, without Python,
    which would wait for the end of a native call."""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGALRM, ctypes.cast(libc.sched_yield, ctypes.c_void_p))


def give_way() -> None:
    """Yield the processor every fraction of a millisecond from now on."""
    signal.setitimer(signal.ITIMER_REAL, _TURN_S, _TURN_S)


def insist() -> None:
    """Yield no more."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def step_forward(pid: int) -> None:
    """Let it run like everybody again; nothing happens if it has ended."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))

"""PURE: how many requests go to a worker at once, and when its answers come back together.

Every trip over the pipe wakes a process, which costs as much as a small model's answer. So where requests wait anyway,
several go in one write and their answers come back in one; none waits for others that have not come yet.
"""

from __future__ import annotations


def depth(service_ms: float, wait_ms: float, least: int, most: int) -> int:
    """Requests inside a worker: those that can be answered within `wait_ms`, twice, so that it never idles while
    answers and new requests pass each other; between `least` and `most`. `service_ms`: of one, 0 before the first."""
    if service_ms <= 0:
        return least
    return max(least, min(most, 2 * int(wait_ms / service_ms)))


def at_once(took_ms: float, wait_ms: float, most: int) -> int:
    """Requests that a worker answers together: those that can be within `wait_ms`, at most `most`, or one. `took_ms`:
    of one of the last, 0 where that is not known."""
    return max(1, int(min(most, wait_ms / took_ms))) if took_ms > 0 else 1

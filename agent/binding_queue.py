"""PURE: which input of a binding is computed next, and when.

One at a time, so that a busy topic never fills the line of its model; no more often than the binding says; and when
more comes than can be computed, the oldest that waits is dropped.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

Outcome = Literal["predicted", "dropped", "failed"]


class Input(NamedTuple):
    """What came, and when (monotonic seconds)."""

    payload: bytes
    received: float


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """`every` in seconds, from the beginning of one prediction to that of the next; 0: no limit."""

    keep: int
    every: float
    waiting: tuple[Input, ...] = ()
    busy: bool = False
    """One is being computed."""
    next_at: float = float("-inf")
    received: int = 0
    predicted: int = 0
    dropped: int = 0
    failed: int = 0


class Came(NamedTuple):
    """New inputs, oldest first; `skipped` more were not even kept."""

    payloads: tuple[bytes, ...]
    skipped: int = 0


class Wrong(NamedTuple):
    """Something came that is no input."""


class Done(NamedTuple):
    """What became of the one that was computed."""

    outcome: Outcome


class Due(NamedTuple):
    """The time has come for which `Wake` asked."""


class Left(NamedTuple):
    """The connection is gone: what waits is stale when it returns."""


Event = Came | Wrong | Done | Due | Left


class Compute(NamedTuple):
    input: Input


class Wake(NamedTuple):
    at: float


Action = Compute | Wake


def step(queue: Queue, event: Event, now: float) -> tuple[Queue, Action | None]:
    """Take one event."""
    match event:
        case Came(payloads, skipped):
            queue = _with(queue, tuple(Input(payload, now) for payload in payloads), skipped)
        case Wrong():
            return msgspec.structs.replace(queue, received=queue.received + 1, failed=queue.failed + 1), None
        case Done(outcome):
            queue = msgspec.structs.replace(queue, busy=False, **{outcome: getattr(queue, outcome) + 1})
        case Left():
            gone = queue.dropped + len(queue.waiting)
            return msgspec.structs.replace(queue, waiting=(), dropped=gone), None
    return _next(queue, now)


def _with(queue: Queue, new: tuple[Input, ...], skipped: int) -> Queue:
    waiting = (*queue.waiting, *new)
    most = queue.keep + (not queue.busy)  # The next one does not wait.
    surplus = max(0, len(waiting) - most)
    return msgspec.structs.replace(
        queue,
        waiting=waiting[surplus:],
        received=queue.received + len(new) + skipped,
        dropped=queue.dropped + surplus + skipped,
    )


def _next(queue: Queue, now: float) -> tuple[Queue, Action | None]:
    if queue.busy or not queue.waiting:
        return queue, None
    if now < queue.next_at:
        return queue, Wake(queue.next_at)
    first, *others = queue.waiting
    # Counted from when it was due: a loop that is a little late does not make the rate a little lower.
    due = queue.next_at if now - queue.next_at < queue.every else now
    return msgspec.structs.replace(queue, waiting=tuple(others), busy=True, next_at=due + queue.every), Compute(first)

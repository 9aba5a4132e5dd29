"""Finished requests on their way into the log: held in a bounded buffer, written a batch at a time.

A request never waits for this: it leaves its trace here, and the database's thread encodes and writes it.
"""

from __future__ import annotations

from controller import request_rows
from controller.entries import Request, told_of
from controller.inference import Trace
from controller.settings import Limits
from controller.tick import Tick


class RequestLog:
    """Owned by the loop."""

    def __init__(self, limits: Limits) -> None:
        self._keep = limits.requests_kept
        self._waiting: list[Request] = []
        self._written: list[Request] = []
        """Let go of one by one: thousands at once would hold up the loop."""

    def __contains__(self, request_id: object) -> bool:
        """Does this request wait to be written?"""
        return any(request.id == request_id for request in self._waiting)

    def add(self, trace: Trace, kept: str, now: float) -> None:
        """Keep a finished request; the oldest go when the disk does not keep up. `kept`: what becomes of its answer."""
        self._waiting.append(Request(*told_of(trace), trace.attempts, trace.steps, kept, now))
        if self._written:
            self._written.pop()
        if len(self._waiting) > self._keep:
            del self._waiting[: self._keep // 10]

    def flush(self, tick: Tick) -> None:
        """Hand what waits to the writer."""
        if self._waiting:
            batch = tuple(self._waiting)
            tick.save(request_rows.add(batch, tick.now, self._keep))
            tick.then(lambda: self._forget(len(batch)))

    def _forget(self, count: int) -> None:
        self._written = self._waiting[:count]
        del self._waiting[:count]

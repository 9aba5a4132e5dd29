"""Finished requests on their way into the log: held in bounded pages, written a batch at a time.

A request never waits for this: it leaves its trace here, and the database's thread writes it.
"""

from __future__ import annotations

from collections import deque

from controller import request_rows
from controller.entries import Request, told_of
from controller.pages import Open, Page
from controller.settings import Limits
from controller.tick import Tick
from controller.trace import Trace


class RequestLog:
    """Owned by the loop."""

    def __init__(self, limits: Limits) -> None:
        self._keep = limits.requests_kept
        self._open = Open(request_rows.size_of)
        self._waiting: deque[Page] = deque()
        self.rows = 0
        """In the pages that wait."""

    def __contains__(self, request_id: object) -> bool:
        """May this request wait to be written?"""
        key = str(request_id)
        return self._open.may_hold(key) or any(page.id <= key <= page.last_id for page in self._waiting)

    def add(self, trace: Trace, kept: str, now: float) -> None:
        """Keep a finished request; the oldest go when the disk does not keep up. `kept`: what becomes of its answer."""
        full = self._open.add(Request(*told_of(trace), trace.attempts, trace.steps, kept, now))
        if full:
            self._close(full)

    def flush(self, tick: Tick) -> None:
        """Hand what waits to the writer."""
        self._close(self._open.close())
        if self._waiting:
            batch = tuple(self._waiting)
            tick.save(request_rows.add(batch, tick.now, self._keep))
            tick.then(lambda: self._forget(batch))

    def _close(self, full: list[Page]) -> None:
        self._waiting += full
        self.rows += sum(page.rows for page in full)
        while self._waiting and self.rows - self._waiting[0].rows >= self._keep:
            self.rows -= self._waiting.popleft().rows

    def _forget(self, written: tuple[Page, ...]) -> None:
        """Some of these may have gone meanwhile."""
        while self._waiting and self._waiting[0] in written:
            self.rows -= self._waiting.popleft().rows

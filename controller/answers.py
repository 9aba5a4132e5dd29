"""Answers on their way into the store: taken by policy, held in bounded pages, written a batch at a time.

A request never waits for this: it leaves its answer here, and the database's thread writes it. Where the disk does not
keep up, the oldest are dropped and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from controller import answer_rows, policy
from controller.entries import FullAnswer, told_of
from controller.pages import Open, Page
from controller.policies import Policies
from controller.settings import Limits
from controller.tick import Tick
from controller.trace import Trace

# How often answers are looked at for their age.
_EXPIRE_S = 30.0
_MOST_ERROR = 1000
_NOT_KEPT = "the answer is not kept"
_WITH, _WITHOUT = "the answer is kept, with its inputs", "the answer is kept, without its inputs"


class Answers:
    """Owned by the loop."""

    def __init__(self, policies: Policies, limits: Limits, draw: Callable[[], float]) -> None:
        """`draw` in [0, 1) chooses samples."""
        self._policies = policies
        self._limits = limits
        self._draw = draw
        self._open = Open(answer_rows.size_of)
        self._waiting: deque[Page] = deque()
        self._rows = self._bytes = 0
        """In the pages that wait."""
        self._writing = 0
        self._expired_at = float("-inf")
        self.dropped = 0
        """Answers that were to be stored and were not, since the controller started."""

    def offer(self, trace: Trace) -> str:
        """A request is over; says in words what becomes of it. One that no device was asked has no answer to keep."""
        how = self._policies.of(trace.model)
        if not trace.attempts or not policy.keeps(how, trace.state != "answered", self._draw()):
            return _NOT_KEPT
        size = policy.ROW_BYTES + sum([len(tensor.data) for tensor in trace.outputs])
        if policy.keeps_inputs(how):
            size += trace.bytes
        else:
            trace.inputs = ()
        full = self._open.add(_entry(trace, size))
        if full:
            self._close(full)
        return _WITH if trace.inputs else _WITHOUT

    def flush(self, tick: Tick) -> None:
        """Hand what waits to the writer, as much as one commit should take; now and then let the old ones go."""
        if self._writing:
            # The commit before this one failed, and took its answers with it.
            self.dropped += self._writing
            self._writing = 0
        self._close(self._open.close())
        batch = self._take()
        of = self._policies.of
        if batch:
            self._writing = sum(page.rows for page in batch)
            tick.save(answer_rows.add(batch, of, self._limits.answers_bytes))
            tick.then(self._written)
        if tick.now - self._expired_at >= _EXPIRE_S:
            self._expired_at = tick.now
            tick.save(answer_rows.expire(of, tick.wall))

    def _close(self, full: list[Page]) -> None:
        """These wait now; the oldest go where that is too much, but not the newest."""
        self._waiting += full
        self._rows += sum(page.rows for page in full)
        self._bytes += sum(page.size for page in full)
        most = self._limits.answers_waiting_bytes, self._limits.answers_waiting
        while len(self._waiting) > 1 and (self._bytes > most[0] or self._rows > most[1]):
            self.dropped += self._next().rows

    def _take(self) -> list[Page]:
        """As many as one commit should write, and one page at least."""
        taken: list[Page] = []
        left = self._limits.answers_batch
        while self._waiting and (not taken or self._waiting[0].rows <= left):
            taken.append(self._next())
            left -= taken[-1].rows
        return taken

    def _next(self) -> Page:
        page = self._waiting.popleft()
        self._rows -= page.rows
        self._bytes -= page.size
        return page

    def _written(self) -> None:
        self._writing = 0


def _entry(trace: Trace, size: int) -> FullAnswer:
    error = trace.error[:_MOST_ERROR]
    return FullAnswer(*told_of(trace), error, trace.ms, size, trace.outputs, trace.inputs or None)

"""What is written down of finished requests: statistics, the log, and answers by policy.

They are entered some at a time. One after the other, each costs less than between the requests that are under way,
whose code and data push those of this out of the processor's caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.contract.oip_stats import Statistics
from controller.answers import Answers
from controller.request_log import RequestLog
from controller.tick import Tick
from controller.trace import Trace

# So many wait at most, and no longer than until somebody looks or the next flush.
_MOST = 16
_MOST_BYTES = 256 * 1024
"""Of their inputs."""


class Books:
    """Owned by the loop."""

    def __init__(self, answers: Answers, log: RequestLog, took: Callable[[str, str, float], None]) -> None:
        """`took(device, artifact, ms)` learns what a request took on its device."""
        self._answers = answers
        self._log = log
        self._took = took
        self._statistics = Statistics()
        self._waiting: list[tuple[Trace, float]] = []
        self._bytes = 0

    def add(self, trace: Trace) -> None:
        """A request is over."""
        self._waiting.append((trace, time.monotonic()))
        self._bytes += trace.bytes
        if len(self._waiting) >= _MOST or self._bytes > _MOST_BYTES:
            self._enter()

    def flush(self, tick: Tick) -> None:
        """Hand what is new to the writer."""
        self._enter()
        self._answers.flush(tick)
        self._log.flush(tick)

    @property
    def statistics(self) -> Statistics:
        self._enter()
        return self._statistics

    @property
    def dropped(self) -> int:
        """Answers that were to be stored and were not, since the controller started."""
        return self._answers.dropped

    def may_hold(self, request_id: str) -> bool:
        """Is this request still to be written?"""
        self._enter()
        return request_id in self._log

    def _enter(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        for trace, now in waiting:
            compute_ms = trace.queue_ms + trace.service_ms
            if trace.artifact and compute_ms:
                self._took(trace.device, trace.artifact, compute_ms)
            _count(self._statistics, trace)
            self._log.add(trace, self._answers.offer(trace), now)


def _count(statistics: Statistics, trace: Trace) -> None:
    if trace.state in ("failed", "refused"):
        statistics.failed(trace.model, trace.version, trace.only, trace.ms)
    elif trace.state == "answered":
        statistics.answered(
            trace.model,
            trace.version,
            rows=trace.rows,
            at_ms=round(trace.received_at * 1000 + trace.ms),
            whole_ms=trace.ms,
            queue_ms=trace.queue_ms,
            service_ms=trace.service_ms,
        )

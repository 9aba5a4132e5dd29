"""The first while of a version that serves: the swap ends when it was steady, and falls back when it was not."""

from __future__ import annotations

from collections.abc import Callable

from agent import frames, swap, watched
from agent.contract.messages import WatchResult
from agent.lines import Waiting
from agent.loop import Loop, Timer


class Watch:
    """Tells Steady after enough time or sound answers, Broken once `watched.judge` finds a reason."""

    def __init__(self, loop: Loop, tell: Callable[[swap.Event], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._timer: Timer | None = None
        self._terms: watched.Terms | None = None
        self._before = self._now = watched.Tally()
        self._began = 0.0

    @property
    def begun(self) -> bool:
        return self._timer is not None

    def begin(self, asked: watched.Terms, before: watched.Tally) -> None:
        """`before`: what the answers of the version before were like; empty after a restart of the agent."""
        self.end()
        self._terms, self._before, self._now = asked, before, watched.Tally()
        self._began = self._loop.now()
        self._timer = self._loop.call_later(asked.seconds, lambda: self._look(last=True))

    def answered(self, seen: watched.Seen) -> None:
        if self.begun and self._terms is not None:
            self._now.take(seen)
            self._look(last=self._now.answers >= self._terms.answers)

    def crashed(self, reason: str) -> None:
        """The version's worker ended by itself."""
        if self.begun:
            self._now.crashes += 1
            self._look(last=False, why=f": {reason}")

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def result(self) -> WatchResult | None:
        """What was seen; None if nothing was watched."""
        if self._terms is None:
            return None
        moved = watched.drift(self._before, self._now)
        return WatchResult(
            answers=self._now.answers,
            faults=self._now.faults,
            crashes=self._now.crashes,
            seconds=round(self._loop.now() - self._began, 6),
            p95_before_ms=watched.p95(self._before.row_ms),
            p95_ms=watched.p95(self._now.row_ms),
            drift=None if moved is None else round(moved, 4),
        )

    def _look(self, *, last: bool, why: str = "") -> None:
        assert self._terms is not None
        reason = watched.judge(self._terms, self._before, self._now, last=last)
        if reason:
            self._tell(swap.Broken("user", reason + why))
        elif last:
            self._tell(swap.Steady())


def seen(item: Waiting, computed: frames.Computed, *, fault: bool) -> watched.Seen:
    """What is looked at of an answer. Of a shard only whether it failed: jobs ask other things than people do."""
    fault = fault or computed.nonsense
    if item.is_shard or not computed.rows:
        return watched.Seen(fault=fault)
    return watched.Seen(fault, computed.service_ms / computed.rows, computed.classes, computed.level)

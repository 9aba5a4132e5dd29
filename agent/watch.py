"""The first while of a version that serves: the swap ends when it was steady, and falls back when it was not."""

from __future__ import annotations

from collections.abc import Callable

from agent import swap
from agent.loop import Loop, Timer
from agent.settings import Limits


class Watch:
    """Tells Steady after enough time or answers, Broken after too many faults."""

    def __init__(self, loop: Loop, limits: Limits, tell: Callable[[swap.Event], None]) -> None:
        self._loop = loop
        self._limits = limits
        self._tell = tell
        self._timer: Timer | None = None
        self._answers = 0
        self._faults = 0

    @property
    def begun(self) -> bool:
        return self._timer is not None

    def begin(self) -> None:
        self.end()
        self._answers = self._faults = 0
        self._timer = self._loop.call_later(self._limits.watch_s, lambda: self._tell(swap.Steady()))

    def answered(self, *, fault: bool) -> None:
        self._answers += 1
        self._faults += fault
        if self._faults >= self._limits.watch_failures:
            self._tell(swap.Broken("device", f"{self._faults} of {self._answers} answers were faults"))
        elif self._answers >= self._limits.watch_answers:
            self._tell(swap.Steady())

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""Trying again, a little later each time."""

from __future__ import annotations

from agent.loop import Callback, Loop, Timer


class Backoff:
    """One call that lies ahead at most; its delay doubles from `first` up to `most` seconds until `reset`."""

    def __init__(self, loop: Loop, first: float, most: float) -> None:
        self._loop = loop
        self._first = first
        self._most = most
        self._times = 0
        self._timer: Timer | None = None

    def later(self, callback: Callback) -> None:
        self.cancel()
        delay = min(self._first * 2.0**self._times, self._most)
        self._times = min(self._times + 1, 30)
        self._timer = self._loop.call_later(delay, callback)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reset(self) -> None:
        """It went well: the next delay is the first again."""
        self._times = 0

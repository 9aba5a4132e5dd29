"""One timer for many moments. Nearly all of what it is for ends long before, and a timer each would cost more than the
rest of a wait."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Alarm:
    """Owned by the event loop, whose clock counts."""

    def __init__(self, look: Callable[[float], float]) -> None:
        """`look(now)` does what is due, and returns when something will be: infinity for never."""
        self._look = look
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def by(self, moment: float) -> None:
        """Look at `moment`, or before it."""
        if moment >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = moment
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(moment, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._at, self._timer = math.inf, None
        self.by(self._look(loop.time()))

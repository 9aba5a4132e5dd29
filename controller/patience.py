"""How long requests wait for news: nearly every wait ends long before its time."""

from __future__ import annotations

import asyncio
import math

from controller.alarm import Alarm

Wake = asyncio.Future[None]


class Patience:
    """Owned by the event loop."""

    def __init__(self) -> None:
        self._until: dict[Wake, float] = {}
        self._alarm = Alarm(self._look)

    def begin(self, until: float) -> Wake:
        """What somebody waits for: it is set at that moment of the loop's clock, unless the wait is `over` before."""
        wake: Wake = asyncio.get_running_loop().create_future()
        self._until[wake] = until
        self._alarm.by(until)
        return wake

    def over(self, wake: Wake) -> None:
        del self._until[wake]

    def _look(self, now: float) -> float:
        for wake, until in self._until.items():
            if until <= now:
                end(wake)
        return min((until for until in self._until.values() if until > now), default=math.inf)


def end(wake: Wake) -> None:
    if not wake.done():
        wake.set_result(None)

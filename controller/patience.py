"""How long requests wait for news: one timer for all of them, since nearly every wait ends long before its time."""

from __future__ import annotations

import asyncio

_TICK_S = 0.02
# A shorter wait has a timer of its own: it would notice a tick.
_SHORT_S = 0.2

Wake = asyncio.Future[None]


class Patience:
    """Owned by the event loop."""

    def __init__(self) -> None:
        self._until: dict[Wake, float] = {}
        self._ticking = False

    async def wait(self, wake: Wake, wait_s: float) -> None:
        """Until somebody sets `wake`, or for `wait_s`: of a long wait up to a tenth more."""
        loop = asyncio.get_running_loop()
        if wait_s < _SHORT_S:
            timer = loop.call_later(wait_s, end, wake)
            try:
                await wake
            finally:
                timer.cancel()
            return
        self._until[wake] = loop.time() + wait_s
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK_S, self._tick, loop)
        try:
            await wake
        finally:
            del self._until[wake]

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for wake, until in self._until.items():
            if until <= now:
                end(wake)
        self._ticking = bool(self._until)
        if self._ticking:
            loop.call_later(_TICK_S, self._tick, loop)


def end(wake: Wake) -> None:
    if not wake.done():
        wake.set_result(None)

"""Server-sent events about something that has a state: whoever was away needs nothing of what came meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec
from fastapi.responses import Response, StreamingResponse

from controller.errors import Busy
from controller.watching import Watchers

_LIVE = ("queued", "running", "paused", "draining")
_BEAT = b": still here\n\n"


class Stateful(Protocol):
    @property
    def state(self) -> str: ...


async def stream(
    watchers: Watchers, key: str, now: Callable[[], Awaitable[Stateful]], beat_s: float, path: str
) -> Response:
    """`progress` with the whole state whenever it changes, then one `end`. Raises what `now` raises, and Busy.

    `path`: where the state can be asked for.
    """
    await now()
    if watchers.full:
        raise Busy("too many callers follow what happens", f"ask GET {path} now and then")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(watchers, key, now, beat_s), media_type="text/event-stream", headers=headers)


async def _events(
    watchers: Watchers, key: str, now: Callable[[], Awaitable[Stateful]], beat_s: float
) -> AsyncIterator[bytes]:
    told, number = None, 0
    with watchers.watch(key) as changed:
        while not watchers.closed:
            changed.clear()
            state = await now()
            if state != told:
                told, number = state, number + 1
                yield _event(state, number)
            if state.state not in _LIVE:
                return
            try:
                async with asyncio.timeout(beat_s):
                    await changed.wait()
            except TimeoutError:
                yield _BEAT


def _event(state: Stateful, number: int) -> bytes:
    kind = "progress" if state.state in _LIVE else "end"
    return b"event: %s\nid: %d\ndata: %s\n\n" % (kind.encode(), number, msgspec.json.encode(state))

"""Uvicorn's HTTP protocol, with a door: plain inference requests are read here, and answered or refused.

Uvicorn and FastAPI would spend more on such a request than all that is done for it; and one that is refused on that way
costs a third of one that is answered, which in an overload leaves nothing for those that were let in. Whatever the
strict reader refuses, and every other request, is uvicorn's.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
import re
from asyncio import Transport
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agent.contract.http1 import MAX_HEAD, Parser, Refused, Request, whole
from controller.admission import Crowd
from controller.api.errors import error_body
from controller.errors import Busy

_BEFORE = b"POST /v2/models/"
_MOST_BODY = 1 << 20
"""Larger ones are rare, and pay for the usual way."""
_READ = 1 << 16
"""Bytes of one read. asyncio's own is four times that: more than the allocator keeps, so that it maps memory anew."""
_REFUSAL_S = 0.025, 0.075
"""Between these a refusal is told. Most callers who are refused ask again at once, whatever Retry-After says: to refuse
them a thousand times a second would cost those who were let in, and so would crowds that come back all at once."""
_PLAIN = re.compile(rb"POST /v2/models/[^/ ]+/infer HTTP/1\.1\r\n")
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|expect|connection)[ \t]*:[ \t]*([^\r\n]*)", re.I)
TurnAway = Callable[[int, int], Busy | None]
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Way(Protocol):
    """Who answers what comes through the door."""

    def takes(self, request: Request) -> bool:
        """Is it a request for this way?"""

    async def answer(self, request: Request, peer: str) -> Response:
        """`peer`: the caller's address. Never raises."""


def refusal(error: Busy) -> bytes:
    """The response, whole."""
    return _refusal(error.status, error.message, error.who, error.hint, max(1, math.ceil(error.retry_s)))


@functools.lru_cache(64)
def _refusal(status: int, message: str, who: str, hint: str | None, retry_s: int) -> bytes:
    body = msgspec.json.encode(error_body(message, who, hint))
    head = (
        f"HTTP/1.1 {status} Service Unavailable\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nretry-after: {retry_s}\r\n\r\n"
    )
    return head.encode() + body


def plainly_one(data: bytes) -> bool:
    """Is this, beyond doubt, one whole request for inference and nothing else? Enough to refuse it without reading it:
    its end must be where every reader would see it."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0 or _PLAIN.match(data) is None or data.count(b"\n", 0, end) != data.count(b"\r\n", 0, end):
        return False
    framing = _FRAMING.findall(data, 0, end)
    if len(framing) != 1 or framing[0][0].lower() != b"content-length":
        return False
    length = framing[0][1].rstrip(b" \t")
    return length.isdigit() and len(length) < 16 and int(length) == len(data) - end - 4


class Entrance:
    """What the doors of one server share. `turn_away(inside, callers)` says why nobody can be let in now, when `inside`
    requests were let in and are not answered yet: all that come in one turn of the event loop are read before the first
    of them is begun."""

    def __init__(self, way: Way, turn_away: TurnAway) -> None:
        self.way = way
        self.inside = 0
        self.refused = 0
        """Requests whose callers wait to be told that."""
        self._crowd = Crowd()
        self._turn_away = turn_away

    def full(self, now: float) -> Busy | None:
        """Why there is no room at this moment of the loop's clock."""
        return self._turn_away(self.inside, self._crowd.size(self.inside + self.refused, now))


class Door(HttpToolsProtocol):
    """One connection."""

    entrance: Entrance
    _begun = 0
    """Requests that uvicorn has begun to read and not answered."""
    _reading = False
    """Uvicorn reads one."""
    _answering = False
    _task: asyncio.Task[None]
    """It answers, while somebody does."""
    _leaving = False
    """The connection is closed after the answer at hand."""
    _lacks = 1
    """So many more bytes are worth a look."""
    _idle_since = 0.0
    """When the last of our answers went out, by the loop's clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held = bytearray()
        """What came of the next request."""

    # -- uvicorn's

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.max_size = _READ  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._begun or self._reading:
            super().data_received(data)
            return
        first = not self._held and not self._answering
        full = self.entrance.full(self.loop.time()) if first else None
        if full is not None and plainly_one(data):
            # In an overload most requests are refused: what that costs is taken from those that were let in.
            self._refuse(full, keep=True)
            return
        request = whole(data, _MOST_BODY) if first and full is None else None
        if request is not None and self.entrance.way.takes(request):
            self._begin(request)
            return
        self._held += data
        self._lacks -= len(data)
        if not self._answering:
            if self._lacks <= 0:
                self._advance(looked=first and full is None)
        elif len(self._held) > _MOST_BODY + MAX_HEAD:
            self.flow.pause_reading()

    def on_message_begin(self) -> None:
        self._begun += 1
        self._reading = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._reading = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._begun -= 1
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        # One timer for many requests: a new one for each would be most of what waits in the loop.
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._answering:
            left = self.timeout_keep_alive
        if left > 0 and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._answering:
            self._leaving = True
        else:
            super().shutdown()

    # -- ours

    def _advance(self, *, looked: bool = False) -> None:
        """Answer or refuse what is held, as far as it is whole. `looked`: for the first one there is room."""
        while self._held and not self._answering and not self.transport.is_closing():
            request = self._take()
            if request is None:
                return
            full = None if looked else self.entrance.full(self.loop.time())
            looked = False
            if full is None:
                self._begin(request)
            else:
                self._refuse(full, keep=request.keep)

    def _refuse(self, full: Busy, *, keep: bool) -> None:
        self._answering = True
        self.entrance.refused += 1
        self.loop.call_later(random.uniform(*_REFUSAL_S), self._tell_refusal, refusal(full), keep)

    def _tell_refusal(self, said: bytes, keep: bool) -> None:
        self.entrance.refused -= 1
        if not self.transport.is_closing():
            self.transport.write(said)
            if self.flow.write_paused:  # It asks, and does not read the answers.
                self.transport.close()
        self._answering = False
        self._ended(keep=keep)
        self._advance()

    def _take(self) -> Request | None:
        """The next request for this way, whole. Anything else goes to uvicorn."""
        if self._held.startswith(_BEFORE):
            parser = Parser(_MOST_BODY)
            parser.feed(bytes(self._held))
            try:
                request = parser.take()
            except Refused:
                self._hand_on()
                return None
            if request is not None and self.entrance.way.takes(request):
                del self._held[: len(self._held) - len(parser)]
                self._lacks = 1
                return request
            if request is not None or parser.expects:
                self._hand_on()
            else:
                self._lacks = parser.missing
        elif not _BEFORE.startswith(self._held):
            self._hand_on()
        return None

    def _hand_on(self) -> None:
        held, self._held = bytes(self._held), bytearray()
        self._lacks = 1
        super().data_received(held)

    def _begin(self, request: Request) -> None:
        self._answering = True
        self.entrance.inside += 1
        self._task = self.loop.create_task(self._answer(request))
        self.tasks.add(self._task)

    async def _answer(self, request: Request) -> None:
        try:
            try:
                response = await self.entrance.way.answer(request, self.client[0] if self.client else "")
            finally:
                self.entrance.inside -= 1
            if not self.transport.is_closing():
                self.transport.write(self._told(response, keep=request.keep and not self._leaving))
                if self.flow.write_paused:
                    await self.flow.drain()
        finally:
            # Here, because a callback of the task would take a turn of the loop.
            self.tasks.discard(self._task)
        self._answering = False
        self._ended(keep=request.keep)
        self._advance()

    def _ended(self, *, keep: bool) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not keep or self._leaving:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            wait_s = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(wait_s, self.timeout_keep_alive_handler)
        self.flow.resume_reading()

    def _told(self, response: Response, *, keep: bool) -> bytes:
        pieces = [_STATUS[response.status_code]]
        for name, value in (*self.server_state.default_headers, *response.raw_headers):
            pieces += (name, b": ", value, b"\r\n")
        if not keep:
            pieces.append(b"connection: close\r\n")
        pieces += (b"\r\n", bytes(response.body))
        return b"".join(pieces)


def door(way: Way, turn_away: TurnAway) -> type[Door]:
    """The protocol for `uvicorn.Config`."""

    class Ours(Door):
        entrance = Entrance(way, turn_away)

    return Ours

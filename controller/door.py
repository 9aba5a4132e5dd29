"""Uvicorn's HTTP protocol, with a door: an inference request that finds no room is refused before it is parsed.

A request that is refused on uvicorn's way costs a third of one that is answered. When four times as many come as can be
answered, that would leave nothing for those that were let in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from controller.api.errors import error_body
from controller.errors import Busy

_BEFORE, _AFTER = b"POST /v2/models/", b"/infer HTTP/1.1"
_LENGTH = b"content-length:"


def is_whole_inference(data: bytes) -> bool:
    """Is this one inference request by the short path, whole, and nothing else?"""
    if not data.startswith(_BEFORE):
        return False
    end = data.find(b"\r\n\r\n")
    head = data[:end].lower()
    if end < 0 or _AFTER.lower() not in head[: head.find(b"\r\n")]:
        return False
    at = head.find(_LENGTH)
    if at < 0 or head.find(_LENGTH, at + 1) >= 0:
        return False
    told = head[at + len(_LENGTH) :].split(b"\r\n", 1)[0].strip()
    return told.isdigit() and len(told) < 12 and len(data) == end + 4 + int(told)


def refusal(error: Busy) -> bytes:
    """The response, whole."""
    body = msgspec.json.encode(error_body(error.message, error.who, error.hint))
    head = (
        f"HTTP/1.1 {error.status} Service Unavailable\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nretry-after: {max(1, math.ceil(error.retry_s))}\r\n\r\n"
    )
    return head.encode() + body


def door(turn_away: Callable[[int], Busy | None]) -> type[HttpToolsProtocol]:
    """The protocol for `uvicorn.Config`. `turn_away(inside)` says why nobody can be let in now, when `inside` inference
    requests were let in and are not answered yet. They are counted here, because all that come in one turn of the event
    loop are read before the first of them is begun."""
    inside = 0

    class Door(HttpToolsProtocol):
        _between = True
        """No request is half read or half answered."""
        _inside = False

        def data_received(self, data: bytes) -> None:
            nonlocal inside
            if self._between and is_whole_inference(data):
                full = turn_away(inside)
                if full is not None:
                    self.transport.write(refusal(full))
                    return
                self._inside = True
                inside += 1
            super().data_received(data)

        def on_message_begin(self) -> None:
            self._between = False
            super().on_message_begin()

        def on_response_complete(self) -> None:
            self._between = True
            self._out()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._out()
            super().connection_lost(exc)

        def _out(self) -> None:
            nonlocal inside
            inside -= self._inside
            self._inside = False

    return Door

"""What is refused before any route is asked: callers of foreign sites, and bodies that are too big."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.api.errors import refuse
from controller.errors import BadRequest, Forbidden, TooLarge
from controller.settings import Settings

# A page of another site that runs in this machine's browser reaches loopback too: it is told by these headers.
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
_OWN = "call it by 127.0.0.1 or localhost"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class Guard:
    """Refuses requests whose Host or Origin is not ours (DNS rebinding, foreign pages) when bound to loopback without
    TLS. With TLS no foreign name has a certificate."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = hosts_of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hosts is not None:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            refusal = foreign(headers, self._hosts)
            if refusal is not None:
                await refuse(send, refusal)
                return
        await self._app(scope, receive, send)


class Bodies:
    """Refuses bodies beyond `limit` bytes before they are read whole, but for routes that read their own in pieces:
    (method, path), where a path may be one with a {name} in it, or the beginning of one, which ends in a slash."""

    def __init__(self, app: ASGIApp, limit: int, own: Collection[tuple[str, str]]) -> None:
        self._app = app
        self._limit = limit
        self._own = frozenset(own)
        self._below = tuple(path for _, path in own if path.endswith("/"))
        self._around = tuple(re.compile(re.sub("{[^}]*}", "[^/]+", path)) for _, path in own if "{" in path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _BODILESS or self._reads_its_own(scope):
            await self._app(scope, receive, send)
            return
        told = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if told is None:
            pieces = await _read(receive, self._limit)
            if pieces is None:
                await refuse(send, self._too_large())
                return
            receive = _replay(pieces, receive)
        elif not told.isdigit():
            await refuse(send, BadRequest("Content-Length is no number"))
            return
        elif int(told) > self._limit:
            await refuse(send, self._too_large())
            return
        await self._app(scope, receive, send)

    def _reads_its_own(self, scope: Scope) -> bool:
        path: str = scope["path"]
        known = path.startswith(self._below) or (scope["method"], path) in self._own
        return known or any(around.fullmatch(path) for around in self._around)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"this request has at most {self._limit:,} bytes", "PUT big files to /api/v1/files")


async def _read(receive: Receive, limit: int) -> list[Message] | None:
    """The messages of a body whose length was not told; None if it is too big."""
    pieces: list[Message] = []
    size = 0
    while True:
        message = await receive()
        pieces.append(message)
        size += len(message.get("body", b""))
        if size > limit:
            return None
        if message["type"] != "http.request" or not message.get("more_body", False):
            return pieces


def _replay(pieces: list[Message], receive: Receive) -> Receive:
    left = iter(pieces)

    async def again() -> Message:
        found = next(left, None)
        return await receive() if found is None else found

    return again


def hosts_of(settings: Settings) -> frozenset[str] | None:
    """What this controller may be called by; None: by anything."""
    return _LOOPBACK if settings.host in _LOOPBACK and not settings.lan else None


def foreign(headers: Mapping[str, str], hosts: frozenset[str]) -> Forbidden | None:
    """Why a request is refused for its Host or Origin. Header names in lower case."""
    host = _name_in(f"//{headers.get('host', '')}")
    if host not in hosts:
        return Forbidden(f"Host {host[:80]!r} is not served here", _OWN)
    origin = headers.get("origin")
    if origin is not None and _name_in(origin) not in hosts:
        return Forbidden(f"Origin {origin[:80]!r} may not call this controller", _OWN)
    return None


@functools.lru_cache(64)
def _name_in(url: str) -> str:
    """The host's; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""

"""Who may call: the token, and on loopback the Host and Origin of the caller."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as HttpScope

from controller import reads, records
from controller.api.errors import error_body
from controller.errors import Unauthorized
from controller.parts import Controller
from controller.settings import Settings

# A page of another site that runs in this machine's browser reaches loopback too: it is told by these headers.
Scope = Literal["open", "device", "read", "infer", "operate", "release", "admin"]
"""`admin` may do everything; `device` is an enrolled device with its token; `open` asks for nothing."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


def controller_of(request: Request) -> Controller:
    controller: Controller = request.app.state.controller
    return controller


class Needs:
    """What a caller must be allowed to do: any one of `scopes`. Every route declares exactly one of these."""

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = frozenset(scopes)

    async def __call__(self, request: Request) -> None:
        # A coroutine: FastAPI would send a plain function to a thread.
        if "open" in self.scopes:
            return
        controller = controller_of(request)
        token = _bearer(request)
        if hmac.compare_digest(token.encode(), controller.keys.api_token.encode()):
            return
        device: records.Device | None = None
        if "device" in self.scopes:
            device = await controller.store.read(reads.device_of_token(hash_of(token)))
        if device is None:
            raise Unauthorized(
                "the API token is missing or wrong", "send Authorization: Bearer with the data folder's api-token"
            )


def needs(*scopes: Scope) -> list[Any]:
    """For a route's `dependencies`."""
    return [Depends(Needs(*scopes))]


OPEN = needs("open")
READ = needs("read")
INFER = needs("infer")
OPERATE = needs("operate")
RELEASE = needs("release")
ADMIN = needs("admin")
DEVICE = needs("device")


def hash_of(secret: str) -> str:
    """What is stored of a token: enough to know it again, useless to whoever reads the database."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Guard:
    """Refuses requests whose Host or Origin is not ours (DNS rebinding, foreign pages) when bound to loopback."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = _LOOPBACK if settings.host in _LOOPBACK else None

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hosts is not None:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            foreign = _foreign(headers, self._hosts)
            if foreign:
                await _refuse(send, foreign)
                return
        await self._app(scope, receive, send)


def _foreign(headers: dict[bytes, str], hosts: frozenset[str]) -> str | None:
    host = urlsplit(f"//{headers.get(b'host', '')}").hostname or ""
    if host not in hosts:
        return f"Host {host[:80]!r} is not served here"
    origin = headers.get(b"origin")
    if origin is not None and (urlsplit(origin).hostname or "") not in hosts:
        return f"Origin {origin[:80]!r} may not call this controller"
    return None


async def _refuse(send: Send, message: str) -> None:
    body = msgspec.json.encode(error_body(message, "user", "call it by 127.0.0.1 or localhost"))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})

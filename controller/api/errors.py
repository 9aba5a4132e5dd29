"""One place where errors become HTTP: status, who is at fault, what to do."""

from __future__ import annotations

import logging
import math
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Send

from controller.errors import Busy, LeptaError, Preparing, TooMany, Unauthorized

log = logging.getLogger("lepta.api")


def reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response of any value that msgspec can encode."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(LeptaError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def error_body(message: str, who: str, hint: str | None) -> dict[str, str | None]:
    return {"error": message, "who": who, "hint": hint}


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, LeptaError)
    return respond(error)


def respond(error: LeptaError) -> Response:
    headers = {**error.headers, **(_headers(error) or {})}
    return reply(error_body(error.message, error.who, error.hint), error.status, headers)


def _headers(error: LeptaError) -> dict[str, str] | None:
    if isinstance(error, TooMany | Busy):
        return {"Retry-After": str(max(1, math.ceil(error.retry_s)))}
    if isinstance(error, Preparing):
        return {"Location": f"/api/v1/models/{quote(error.model, safe='')}/preparation", "Retry-After": "1"}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else None


async def refuse(send: Send, error: LeptaError) -> None:
    """Answer before any route was asked."""
    body = msgspec.json.encode(error_body(error.message, error.who, error.hint))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in (_headers(error) or {}).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in error.errors())
    return reply(error_body(f"the request is not as documented: {faults}", "user", "see /api/v1/openapi.json"), 422)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    told = {404: f"nothing is at {path}", 405: f"{request.method} does nothing at {path}"}
    message = told.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    return reply(error_body(message, "user", "see /api/v1/openapi.json"), error.status_code, headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s broke", request.method, request.url.path, exc_info=error)
    return broken()


def broken() -> Response:
    """Something that must not happen did; the log has it."""
    return reply(error_body("something broke here", "us", "see the controller's log"), 500)

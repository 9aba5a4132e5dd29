"""PURE: HTTP responses of the local endpoint, as bytes."""

from __future__ import annotations

import msgspec

from agent import frames
from agent.contract.messages import Fault
from agent.contract.oip_names import HEADER_LENGTH

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    503: b"Service Unavailable",
}
_JSON = b"Content-Type: application/json\r\n"
_RAW = b"Content-Type: application/octet-stream\r\n" + HEADER_LENGTH.encode() + b": %d\r\n"
_AGAIN = b"Retry-After: 1\r\n"
_CLOSE = b"Connection: close\r\n"


def json(value: object, status: int = 200, *, keep: bool = True) -> bytes:
    """A whole response that carries `value`."""
    body = msgspec.json.encode(value)
    return _head(status, _JSON + (_AGAIN if status == 503 else b""), len(body), keep) + body


def error(status: int, message: str, *, keep: bool = True) -> bytes:
    return json({"error": message}, status, keep=keep)


def answer(computed: frames.Computed, *, keep: bool = True) -> list[bytes]:
    """What the worker answered, or why it could not; in pieces, so that a large body is not copied."""
    if computed.fault is not None:
        return [failure(computed.fault, keep=keep)]
    kind = _RAW % computed.header_length if computed.header_length else _JSON
    return [_head(200, kind, len(computed.body), keep), computed.body]


def failure(found: Fault, *, keep: bool = True) -> bytes:
    """The user's own: 400. Anything else may be over in a moment: 503, and when to try again."""
    return error(400 if found.who == "user" else 503, found.message, keep=keep)


def _head(status: int, more: bytes, length: int, keep: bool) -> bytes:
    return b"HTTP/1.1 %d %s\r\n%sContent-Length: %d\r\n%s\r\n" % (
        status,
        _REASONS[status],
        more,
        length,
        b"" if keep else _CLOSE,
    )

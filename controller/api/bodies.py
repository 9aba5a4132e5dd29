"""Bodies of inference requests and answers: bounded before they are in memory, compressed where the caller says so."""

from __future__ import annotations

import asyncio
import re
import zlib
from functools import lru_cache

from fastapi import Request
from fastapi.responses import Response

from agent.contract.oip_names import CODINGS
from controller.errors import BadRequest, TooLarge

# Much compressed data unpacks in steps, and others have their turn in between.
_STEP = 1024 * 1024
# Below this, packing costs more than it saves: most HTTP libraries ask for it without being told to.
_WORTH = 4096
# Above this, packing is left to a thread: it takes milliseconds.
_LONG = 64 * 1024
_NEVER = re.compile(r"q=0(\.0*)?")


async def read(request: Request, limit: int) -> bytes:
    """The body, gzip or deflate undone, never more than about `limit` bytes of it in memory. Raises BadRequest or
    TooLarge."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in CODINGS:
        raise BadRequest(f"Content-Encoding {encoding[:40]!r} is not understood", "send identity, gzip or deflate")
    packed = _Packed(encoding, limit) if encoding in CODINGS else None
    body = bytearray()
    async for piece in request.stream():
        if packed is None:
            body += piece
            _check(len(body), limit)
        else:
            await packed.add(piece)
    return bytes(body) if packed is None else packed.whole()


class _Packed:
    """A compressed body while it comes in."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._undo = zlib.decompressobj(wbits=CODINGS[encoding])
        self._body = bytearray()

    async def add(self, piece: bytes) -> None:
        while piece:
            piece = self._take(piece)
            if piece:
                await asyncio.sleep(0)

    def whole(self) -> bytes:
        while not self._undo.eof:
            before = len(self._body)
            self._take(b"")
            if len(self._body) == before and not self._undo.eof:
                raise BadRequest(f"the {self._encoding} body is cut off")
        return bytes(self._body)

    def _take(self, piece: bytes) -> bytes:
        """Unpack a step of it; returns what is left."""
        try:
            self._body += self._undo.decompress(piece, _STEP)
        except zlib.error as error:
            raise BadRequest(f"the body is not {self._encoding}: {error}") from error
        _check(len(self._body), self._limit)
        if self._undo.unused_data:
            raise BadRequest(f"something follows the {self._encoding} data in the body")
        return self._undo.unconsumed_tail


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"an inference request has at most {limit:,} bytes", "send a batch as a job: lepta job run")


async def respond(accepted: str, body: bytes, media_type: str, headers: dict[str, str] | None = None) -> Response:
    """An answer, compressed if the caller accepts that (`accepted`: header Accept-Encoding) and it is worth it."""
    coding = _accepted(accepted) if len(body) >= _WORTH else None
    headers = dict(headers or {})
    if coding is not None:
        headers["Content-Encoding"] = coding
        body = _pack(body, coding) if len(body) < _LONG else await asyncio.to_thread(_pack, body, coding)
    return _Answer(body, media_type, headers)


class _Answer(Response):
    """As the base class would make it, which takes as long as all else that is done to encode a small answer."""

    def __init__(self, body: bytes, media_type: str, headers: dict[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.media_type = media_type
        self.body = body
        told = {**headers, "Content-Length": str(len(body)), "Content-Type": media_type}
        self.raw_headers = [(_lower(name), value.encode("latin-1")) for name, value in told.items()]


@lru_cache(64)
def _lower(name: str) -> bytes:
    return name.lower().encode("latin-1")


def _pack(body: bytes, coding: str) -> bytes:
    packer = zlib.compressobj(1, wbits=CODINGS[coding])
    return packer.compress(body) + packer.flush()


def _accepted(header: str) -> str | None:
    """The coding of ours that an Accept-Encoding header names; one with q=0 is refused by it."""
    named = [part.partition(";") for part in header.lower().replace(" ", "").split(",")]
    taken = {name for name, _, weight in named if not _NEVER.fullmatch(weight)}
    return next((coding for coding in CODINGS if coding in taken), None)

"""Chunks from an HTTP address, read on short-lived threads. Imported only where one is needed."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message as Headers
from http.client import HTTPException, HTTPResponse
from typing import IO

from agent.chunks import ChunkError, Ranges
from agent.contract.manifest import is_digest
from agent.contract.messages import CHUNK_BYTES
from agent.loop import Loop

_AHEAD = 8
Take = Callable[[str, int, int, bytes], object]
"""Gets digest, chunk number, bytes of the whole blob, and the chunk. Raises ChunkError."""
Failed = Callable[[str, str, bool], None]
"""Gets digest, reason, and whether it would always fail."""


class WrongFileError(Exception):
    """The other side answers with something else than what was asked for."""


class HttpSource:
    """GET with Range of `base` + digest. `token` goes to `base` only: redirects are not followed.

    A mirror is given no token. What it sends is checked as everything is: by the digest.
    """

    def __init__(
        self,
        loop: Loop,
        base: str,
        timeout: float,
        take: Take,
        failed: Failed,
        *,
        token: str = "",
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`context` makes what https:// trusts; it is asked at each download, as the clock may have been set."""
        self._loop = loop
        self._base = base
        self._token = token
        self._timeout = timeout
        self._context = context
        self._running: dict[str, threading.Event] = {}
        self._take = take
        self._failed = failed

    def begin(self, digest: str, public: bool) -> None:
        return

    def ask(self, digest: str, size: int | None, ranges: Ranges) -> None:
        if digest in self._running:
            return  # It still reads; its timeout ends it.
        stop = self._running[digest] = threading.Event()
        self._loop.in_thread(
            lambda: self._read_all(digest, size, ranges, stop), lambda result: self._over(digest, stop, result)
        )

    def end(self, digest: str) -> None:
        stop = self._running.pop(digest, None)
        if stop is not None:
            stop.set()

    def _read_all(self, digest: str, size: int | None, ranges: Ranges, stop: threading.Event) -> None:
        ahead, opener = threading.Semaphore(_AHEAD), self._opener()
        for first, last in ranges:
            if stop.is_set():
                return
            with opener.open(self._request(digest, size, first, last), timeout=self._timeout) as response:
                number, total = _checked(response, digest, size, first)
                while not stop.is_set() and number * CHUNK_BYTES < total and (data := response.read(CHUNK_BYTES)):
                    if len(data) < min(CHUNK_BYTES, total - number * CHUNK_BYTES):
                        raise ConnectionError("the connection ended in the middle")
                    ahead.acquire()
                    self._loop.call_soon(self._delivery(digest, number, total, data, ahead))
                    number += 1

    def _request(self, digest: str, size: int | None, first: int, last: int) -> urllib.request.Request:
        end = "" if size is None else str(min((last + 1) * CHUNK_BYTES, size) - 1)
        headers = {"Range": f"bytes={first * CHUNK_BYTES}-{end}", "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return urllib.request.Request(self._base + digest, headers=headers)

    def _opener(self) -> urllib.request.OpenerDirector:
        secured = [urllib.request.HTTPSHandler(context=self._context())] if self._context is not None else []
        return urllib.request.build_opener(_NoRedirect(), *secured)

    def _delivery(
        self, digest: str, number: int, total: int, data: bytes, ahead: threading.Semaphore
    ) -> Callable[[], None]:
        def deliver() -> None:
            ahead.release()
            try:
                self._take(digest, number, total, data)
            except ChunkError as error:
                self._failed(digest, str(error), True)

        return deliver

    def _over(self, digest: str, stop: threading.Event, result: Exception | None) -> None:
        if isinstance(result, urllib.error.HTTPError):
            result.close()  # It is a response, too: its socket is open.
        if self._running.get(digest) is not stop:
            return
        del self._running[digest]
        if isinstance(result, urllib.error.HTTPError):
            reason = f"{self._base} refuses blob {digest[:12]}: HTTP {result.code}"
            self._failed(digest, reason, result.code < 500)
        elif isinstance(result, WrongFileError):
            self._failed(digest, f"{self._base}: {result}", True)
        elif isinstance(result, (OSError, HTTPException)):
            self._failed(digest, f"{self._base}: {result}", False)
        elif result is not None:
            raise result


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another address is another party: it gets neither our token nor our trust."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Headers, newurl: str
    ) -> None:
        return None


def _checked(response: HTTPResponse, digest: str, size: int | None, first: int) -> tuple[int, int]:
    """Number of the chunk that comes first, and bytes of the whole file. Raises WrongFileError."""
    tag = response.headers.get("ETag", "").removeprefix("W/").strip('"')
    if is_digest(tag) and tag != digest:
        raise WrongFileError(f"it has another file under the name of blob {digest[:12]} (ETag {tag[:12]})")
    start, total = 0, int(response.headers.get("Content-Length") or 0)
    if response.status == 206:
        span, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        start_text = span.partition("-")[0]
        if not (start_text.isdecimal() and whole.isdecimal()):
            raise WrongFileError("its Content-Range cannot be read")
        start, total = int(start_text), int(whole)
        if start != first * CHUNK_BYTES:
            raise WrongFileError(f"it sends bytes from {start}, asked for were those from {first * CHUNK_BYTES}")
    if size is not None and total != size:
        raise WrongFileError(f"its blob {digest[:12]} has {total} bytes, {size} are known")
    return start // CHUNK_BYTES, total

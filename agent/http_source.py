"""Chunks from the controller's HTTP address, read on short-lived threads. Imported only where `fetch = "http"`."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message as Headers
from typing import IO, Literal

from agent.chunks import ChunkError, Ranges
from agent.contract.messages import CHUNK_BYTES
from agent.fetch import Fetcher
from agent.loop import Loop

_AHEAD = 8


class HttpSource:
    """GET with Range from the controller; the device token goes to the controller's origin only."""

    way: Literal["mqtt", "http"] = "http"

    def __init__(
        self,
        loop: Loop,
        controller: str,
        token: str,
        timeout: float,
        fetcher: Callable[[], Fetcher],
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`context` makes what https:// trusts; it is asked at each download, as the clock may have been set."""
        self._loop = loop
        self._base = f"{controller}/api/v1/files/"
        self._token = token
        self._timeout = timeout
        self._origin = controller
        self._context = context
        self._running: dict[str, threading.Event] = {}
        self._fetcher = fetcher

    def begin(self, digest: str) -> None:
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
            start = first * CHUNK_BYTES
            end = "" if size is None else str(min((last + 1) * CHUNK_BYTES, size) - 1)
            headers = {"Authorization": f"Bearer {self._token}", "Range": f"bytes={start}-{end}"}
            request = urllib.request.Request(self._base + digest, headers=headers)
            with opener.open(request, timeout=self._timeout) as response:
                total = _total(response.headers, start if response.status == 206 else 0)
                number = first if response.status == 206 else 0
                while not stop.is_set() and (data := response.read(CHUNK_BYTES)):
                    if len(data) < min(CHUNK_BYTES, total - number * CHUNK_BYTES):
                        raise ConnectionError("the connection ended in the middle")
                    ahead.acquire()
                    self._loop.call_soon(self._delivery(digest, number, total, data, ahead))
                    number += 1

    def _opener(self) -> urllib.request.OpenerDirector:
        secured = [urllib.request.HTTPSHandler(context=self._context())] if self._context is not None else []
        return urllib.request.build_opener(_SameOrigin(self._origin), *secured)

    def _delivery(
        self, digest: str, number: int, total: int, data: bytes, ahead: threading.Semaphore
    ) -> Callable[[], None]:
        def deliver() -> None:
            ahead.release()
            try:
                self._fetcher().chunk(digest, number, total, data)
            except ChunkError as error:
                self._fetcher().failed(digest, "network", str(error))

        return deliver

    def _over(self, digest: str, stop: threading.Event, result: Exception | None) -> None:
        if self._running.get(digest) is not stop:
            return
        del self._running[digest]
        if isinstance(result, urllib.error.HTTPError) and 400 <= result.code < 500:
            self._fetcher().failed(digest, "us", f"the controller refuses blob {digest[:12]}: HTTP {result.code}")


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """A redirect to another origin would carry the token there."""

    def __init__(self, origin: str) -> None:
        self._origin = urllib.parse.urlsplit(origin)[:2]

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Headers, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl)[:2] != self._origin:
            raise urllib.error.HTTPError(newurl, code, "a redirect to another origin is not followed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _total(headers: Headers, start: int) -> int:
    """Bytes of the whole file: after the slash of Content-Range, or the length of what comes."""
    _, _, total = headers.get("Content-Range", "").rpartition("/")
    return int(total) if total.isdecimal() else start + int(headers.get("Content-Length", "0"))

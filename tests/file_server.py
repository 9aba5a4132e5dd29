"""An HTTP server of files by digest, with Range, and with every way to misbehave."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple


class Asked(NamedTuple):
    path: str
    range: str
    token: str | None


class FileServer(ThreadingHTTPServer):
    """`with FileServer(blobs) as server`: serves at `url`, below any path. Set how it misbehaves before it is asked."""

    daemon_threads = True

    def __init__(self, blobs: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs = blobs
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[Asked] = []
        self.sent = 0
        self.status = 206
        self.redirect = ""
        self.tag = ""
        self.shift = 0
        self.cut_at: int | None = None
        """Breaks the connection once, after so many bytes."""
        self.pause = 0.0
        """Seconds before every 4 KB."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is nothing to speak of."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def setup(self) -> None:
        # What the kernel takes ahead counts as sent, though the client has left.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        super().setup()

    def do_GET(self) -> None:
        server, digest = self.server, self.path.rpartition("/")[2]
        server.asked.append(Asked(self.path, self.headers["Range"], self.headers["Authorization"]))
        if server.redirect or digest not in server.blobs or server.status >= 400:
            self.send_response(302 if server.redirect else max(404, server.status))
            self.send_header("Location", server.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(digest, server.blobs[digest])

    def _send(self, digest: str, content: bytes) -> None:
        server = self.server
        start_text, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        start, end = int(start_text) + server.shift, int(last) + 1 if last else len(content)
        part = content[start:end] if server.status == 206 else content
        self.send_response(server.status)
        self.send_header("ETag", f'"{server.tag or digest}"')
        self.send_header("Content-Length", str(len(part)))
        if server.status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.end_headers()
        if server.cut_at is not None and len(part) > server.cut_at:
            part, server.cut_at = part[: server.cut_at], None
        for at in range(0, len(part), 4096):
            time.sleep(server.pause)
            self.wfile.write(part[at : at + 4096])
            server.sent += len(part[at : at + 4096])

    def log_message(self, *_: object) -> None:
        return

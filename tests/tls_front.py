"""TLS in front of a broker that speaks none: asks for client certificates, and passes bytes on, slowly if told to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

_PIECE = 16_384


class TlsFront:
    """`peers` are the names in the certificates of those that came, in order; with an empty `ca` nobody is
    asked for one. `pause` in seconds after each piece."""

    def __init__(self, port: int, files: tuple[Path, Path], ca: str, host: str = "127.0.0.1") -> None:
        self._behind = port
        self._host = host
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*files)
        if ca:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(cadata=ca)
        self.peers: list[str] = []
        self.pause = 0.0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # A client that does not trust us hangs up.
        self._open: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> TlsFront:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,))
        self._thread.start()
        assert ready.wait(5)
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        """Break every connection."""
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def _run(self, ready: threading.Event) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, self._host, 0, ssl=self.context))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        self._abort()
        self._loop.run_until_complete(_end_all())
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate: dict[str, Any] = writer.get_extra_info("peercert") or {"subject": ()}
        self.peers.append(dict(entry[0] for entry in certificate["subject"]).get("commonName", "nobody"))
        inner, outer = await asyncio.open_connection("127.0.0.1", self._behind)
        mine = {writer, outer}
        self._open |= mine
        try:
            with contextlib.suppress(OSError):
                await asyncio.wait(
                    {
                        asyncio.ensure_future(self._pump(reader, outer)),
                        asyncio.ensure_future(self._pump(inner, writer)),
                    },
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            self._open -= mine
            for end in mine:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                writer.write(data)
                await writer.drain()
                if self.pause:
                    await asyncio.sleep(self.pause)


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.01)  # Transports close their sockets in a turn of their own.

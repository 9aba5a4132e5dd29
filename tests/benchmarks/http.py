"""A keep-alive HTTP client that costs little processor time, so that load does not measure its own generator."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from agent.contract.wire import no_delay

_IDLE_S = 2.0
"""HTTP servers close idle connections, commonly after five seconds; a request sent just then would be lost."""


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Pool:
    """POSTs one path over as many connections as are under way at once."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{k}: {v}" for k, v in headers.items())]
        self._head = "\r\n".join(lines)
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> Response:
        """One request and its answer; raises OSError or asyncio.IncompleteReadError where there is none."""
        reader, writer = await self._connection()
        writer.write(f"{self._head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        content = await reader.readexactly(int(headers["content-length"]))
        self._free.append((time.monotonic(), reader, writer))
        return Response(int(head[0].split()[1]), headers, content)

    async def close(self) -> None:
        for _, _, writer in self._free:
            writer.close()
            await writer.wait_closed()
        self._free.clear()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection that was used last; a new one if all have been idle so long that the server may close them."""
        while self._free:
            since, reader, writer = self._free.pop()
            if time.monotonic() - since < _IDLE_S:
                return reader, writer
            writer.close()
        return await self._connect()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        no_delay(writer.get_extra_info("socket"))
        return reader, writer

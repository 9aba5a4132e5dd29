"""The shortest MQTT 5 session there is, written by hand: CONNECT, its answer, DISCONNECT."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from controller.broker.port import BrokerError

_CONNECT, _CONNACK, _DISCONNECT = 0x10, 0x20, 0xE0
_USERNAME, _PASSWORD, _CLEAN_START = 0x80, 0x40, 0x02
_KEEPALIVE_S = 10


async def hello(host: str, port: int, client_id: str, username: str, password: str) -> None:
    """Connect under `client_id`, which ends the session of whoever has it, and leave.

    Raises OSError if nobody answers, BrokerError if the broker refuses. The caller bounds the time.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_connect(client_id, username, password))
        kind, length = await reader.readexactly(2)
        body = await reader.readexactly(length)
        if kind != _CONNACK or len(body) < 2 or body[1]:
            raise BrokerError(f"the broker at {host}:{port} refuses us: {(bytes((kind,)) + body[:2]).hex()}")
        writer.write(bytes((_DISCONNECT, 0)))
        await writer.drain()
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("it closed the connection") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _connect(client_id: str, username: str, password: str) -> bytes:
    flags = _CLEAN_START | (_USERNAME | _PASSWORD if username else 0)
    fields = [client_id, *((username, password) if username else ())]
    # Version 5, flags, keepalive, no properties: the session ends with the connection.
    body = _text("MQTT") + struct.pack("!BBHB", 5, flags, _KEEPALIVE_S, 0) + b"".join(map(_text, fields))
    return bytes((_CONNECT,)) + _length(len(body)) + body


def _text(value: str) -> bytes:
    content = value.encode()
    return struct.pack("!H", len(content)) + content


def _length(value: int) -> bytes:
    """MQTT's variable byte integer."""
    found = bytearray()
    while True:
        value, low = divmod(value, 128)
        found.append(low | (128 if value else 0))
        if not value:
            return bytes(found)

"""JSON objects, one a line, over a pipe."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from optimizer.settings import LIMITS

Message = dict[str, Any]


class LineError(ValueError):
    """A line that is no JSON object, or too long."""


class LineReader:
    """Reads what is there, without waiting for more than one read; whole lines come out as objects."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self.closed = False

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> list[Message]:
        """The objects that became whole with the next read. An unfinished line at the end is dropped."""
        more = os.read(self._descriptor, 1 << 16)
        self.closed = not more
        *lines, self._rest = (self._rest + more).split(b"\n")
        if len(self._rest) > LIMITS.request_bytes:
            raise LineError(f"a line of more than {LIMITS.request_bytes} bytes")
        return [_decode(line) for line in lines if line.strip()]


def write(descriptor: int, message: Message) -> None:
    """Write one line; whole, also where the pipe takes it in pieces."""
    left = memoryview(msgspec.json.encode(message) + b"\n")
    while left:
        left = left[os.write(descriptor, left) :]


def _decode(line: bytes) -> Message:
    try:
        decoded = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise LineError(f"not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise LineError("not a JSON object")
    return decoded

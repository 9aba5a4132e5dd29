"""JSON objects, one a line, over a pipe."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from optimizer.settings import LIMITS

Message = dict[str, Any]


class LineReader:
    """Reads what is there, without waiting for more than one read; whole lines come out as objects.

    A line that is no object comes out as {"malformed": why}; one without an end closes the reader.
    """

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
        found = [_decode(line) for line in lines if line.strip()]
        if len(self._rest) > LIMITS.request_bytes:
            self.closed = True
            found.append({"malformed": f"a line of more than {LIMITS.request_bytes} bytes"})
        return found


def write(descriptor: int, message: Message) -> None:
    """Write one line; whole, also where the pipe takes it in pieces."""
    left = memoryview(msgspec.json.encode(message) + b"\n")
    while left:
        left = left[os.write(descriptor, left) :]


def _decode(line: bytes) -> Message:
    try:
        decoded = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        return {"malformed": f"not JSON: {error}"}
    return decoded if isinstance(decoded, dict) else {"malformed": "not a JSON object"}

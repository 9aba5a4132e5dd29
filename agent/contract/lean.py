"""A short way for the messages that requests and blobs are made of: MQTT 5, without properties.

paho reads a packet in three system calls and takes ten times as long for a small message as its bytes need; a large one
it copies eight times. This stands between paho and the socket: it reads what there is at once, takes messages of QoS 0
and 1 out itself, acknowledges the latter, and leaves every other packet to paho, in order. Sent are those of QoS 0 the
same way. What it does not know it does not touch.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, NamedTuple

_READ = 1 << 16
_MOST_PUT = 1 << 20
_PUBLISH = 0x30
"""First byte of a message with QoS 0 that is neither retained nor a duplicate."""
_PUBLISH_1 = 0x32
"""The same with QoS 1."""
_PUBACK = b"\x40\x02"


def encode_publish(topic: str, payload: bytes) -> bytes:
    """A PUBLISH packet (MQTT 5, 3.3): QoS 0, no properties."""
    name = topic.encode()
    left = 2 + len(name) + 1 + len(payload)
    head = bytearray((_PUBLISH,))
    while left >= 128:
        head.append(left % 128 | 128)
        left //= 128
    head.append(left)
    return b"".join((head, len(name).to_bytes(2, "big"), name, b"\0", payload))


def packet_end(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Of the packet that begins at `at`: where its body begins, and where it ends; None while its length is not whole.
    One whose length has more than four bytes ends after five: it is paho's to refuse."""
    length, shift, place = 0, 0, at + 1
    while place < len(data):
        byte = data[place]
        place += 1
        length |= (byte & 127) << shift
        if byte < 128:
            return place, place + length
        shift += 7
        if shift > 21:
            return (place + 1, place + 1) if place < len(data) else None
    return None


class _Publish(NamedTuple):
    topic: str
    payload: bytes
    number: bytes
    """Its packet identifier, with QoS 1."""


def decode_publish(data: bytearray, begin: int, end: int, *, qos_1: bool) -> _Publish | None:
    """A PUBLISH's body; None if it has properties, or is not well formed."""
    size = int.from_bytes(data[begin : begin + 2], "big")
    topic_end = begin + 2 + size
    properties = topic_end + 2 if qos_1 else topic_end
    if size == 0 or properties >= end or data[properties] != 0:
        return None
    with memoryview(data) as view:
        payload = bytes(view[properties + 1 : end])
    return _Publish(data[begin + 2 : topic_end].decode(errors="replace"), payload, bytes(data[topic_end:properties]))


class LeanSocket:
    """A connected socket as paho sees it. `messages` takes QoS 0 messages out; `waiting` says that paho has to read."""

    def __init__(self, sock: Any) -> None:
        self.real: socket.socket = sock
        self._in = bytearray()
        self._ended: OSError | None = None
        self._closed = False
        self._left = bytearray()
        self._stuck = False
        self._midway = False
        """paho has sent a part of a packet: nothing may come between."""
        self._begun = 0
        """Bytes of a packet that paho has begun to read."""

    # -- ours

    def fill(self) -> None:
        """Read what has come, without waiting."""
        while True:
            try:
                got = self.real.recv(_READ)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._ended = error
                return
            self._in += got
            if not got:
                self._closed = True
            pending = getattr(self.real, "pending", None)
            if not got or (len(got) < _READ and not (pending is not None and pending())):
                return

    def messages(self, *, qos_1: bool = True) -> list[tuple[str, bytes]]:
        """Topics and payloads of the messages that come next. Those of QoS 1 are acknowledged by the next `flush`: what
        is returned must be taken. They are left to paho without `qos_1`: while it has something to write, that may be
        an acknowledgement, and brokers want these in the order of the messages."""
        found: list[tuple[str, bytes]] = []
        done = 0
        kinds = (_PUBLISH, _PUBLISH_1) if qos_1 else (_PUBLISH,)
        while done < len(self._in) and (first := self._in[done]) in kinds:
            ends = packet_end(self._in, done)
            if ends is None or ends[1] > len(self._in):
                break
            message = decode_publish(self._in, *ends, qos_1=first == _PUBLISH_1)
            if message is None:
                break
            if message.number:
                self._left += _PUBACK + message.number
            found.append((message.topic, message.payload))
            done = ends[1]
        del self._in[:done]
        return found

    @property
    def waiting(self) -> bool:
        """Is there a whole packet, or an end, that is paho's to read?"""
        if self._ended is not None or self._closed:
            return True
        ends = packet_end(self._in, 0) if self._in else None
        return ends is not None and ends[1] <= len(self._in)

    def publish(self, topic: str, payload: bytes) -> bool:
        """Put a QoS 0 message into the next `flush`, or into what paho sends before that. False, and not put, while
        the socket takes no more."""
        if self._stuck or len(self._left) > _MOST_PUT:
            return False
        self._left += encode_publish(topic, payload)
        return True

    @property
    def put(self) -> bool:
        """Is there something to `flush`?"""
        return bool(self._left)

    @property
    def unsent(self) -> bool:
        """The socket takes no more now: `flush` again when it does."""
        return self._stuck

    def flush(self) -> None:
        """Write what was put, all of it at once: each write wakes the broker. Not within what paho sends."""
        while self._left and not self._midway:
            sent = self._try(self._left)
            if not sent:
                break
            del self._left[:sent]
        self._stuck = bool(self._left)

    def _try(self, data: bytes | bytearray) -> int:
        try:
            return self.real.send(data)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            # The reader sees it too, and tells paho.
            return 0

    # -- paho's

    def recv(self, size: int) -> bytes:
        # Whole packets only: what begins in the middle of one could not be told from its beginning.
        if not self._begun and self._in:
            ends = packet_end(self._in, 0)
            if ends is not None and ends[1] <= len(self._in):
                self._begun = ends[1]
        if self._begun:
            got = bytes(self._in[: min(size, self._begun)])
            del self._in[: len(got)]
            self._begun -= len(got)
            return got
        if self._ended is not None:
            raise self._ended
        if self._closed:
            return b""
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        self.flush()
        if self._left and not self._midway:
            raise BlockingIOError
        sent = self.real.send(data)
        self._midway = sent < len(data)
        return sent

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.real.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

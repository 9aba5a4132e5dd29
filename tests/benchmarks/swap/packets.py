"""PURE: what one MQTT 5 connection said, taken apart as its bytes pass by."""

from __future__ import annotations

from typing import NamedTuple

_PUBLISH = 3


class Published(NamedTuple):
    topic: str
    payload: bytes


class Packets:
    """Feed it one direction of a connection, in pieces of any size."""

    def __init__(self) -> None:
        self._held = b""

    @property
    def unfinished(self) -> int:
        """Bytes of a packet whose end has not come."""
        return len(self._held)

    def feed(self, piece: bytes) -> list[Published]:
        """The messages that end in this piece; packets of other kinds are passed over."""
        found = []
        self._held += piece
        while (end := _end(self._held)) is not None:
            packet, self._held = self._held[: sum(end)], self._held[sum(end) :]
            if packet[0] >> 4 == _PUBLISH:
                found.append(_published(packet[end[0] :], packet[0] >> 1 & 3))
        return found


def _end(held: bytes) -> tuple[int, int] | None:
    """Length of the fixed header and of what follows it; None while not all of both is here."""
    if len(held) < 2:
        return None
    length, used = _number(held[1:5])
    whole = used > 0 and len(held) >= 1 + used + length
    return (1 + used, length) if whole else None


def _published(body: bytes, qos: int) -> Published:
    start = 2 + int.from_bytes(body[:2], "big")
    properties = start + (2 if qos else 0)
    length, used = _number(body[properties : properties + 4])
    return Published(body[2:start].decode(), body[properties + used + length :])


def _number(encoded: bytes) -> tuple[int, int]:
    """A variable byte integer and how many bytes it took; (0, 0) if its end is not among them."""
    value = 0
    for place, byte in enumerate(encoded):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, place + 1
    return 0, 0

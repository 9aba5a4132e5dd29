"""PURE: windows of samples from pieces of any length."""

from __future__ import annotations

import msgspec


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes; `rest` is what the next window begins with, `skip` what still comes before it."""

    window: int
    hop: int
    rest: bytes = b""
    skip: int = 0


def cut(windows: Windows, piece: bytes, most: int) -> tuple[Windows, tuple[bytes, ...], int]:
    """The windows that are whole now, the newest `most` of them, and how many older ones were left out."""
    stream = windows.rest + piece[windows.skip :]
    skip = max(0, windows.skip - len(piece))
    size, hop = windows.window, windows.hop
    count = (len(stream) - size) // hop + 1 if len(stream) >= size else 0
    left_out = max(0, count - most)
    whole = tuple(stream[at : at + size] for at in range(left_out * hop, count * hop, hop))
    start = count * hop
    after = msgspec.structs.replace(windows, rest=stream[start:], skip=skip + max(0, start - len(stream)))
    return after, whole, left_out


def begin_anew(windows: Windows) -> Windows:
    """After a gap: what came before it does not belong to what comes now."""
    return msgspec.structs.replace(windows, rest=b"", skip=0)

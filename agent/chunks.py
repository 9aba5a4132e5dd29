"""PURE: which chunks of a blob are missing, when to ask for them again, and when to give up."""

from __future__ import annotations

from agent.contract.messages import CHUNK_BYTES, Chunk
from agent.contract.packing import PackingError, unpack

Ranges = tuple[tuple[int, int], ...]
_MOST_RANGES = 256
_SLOWEST = 8.0


class ChunkError(ValueError):
    """A chunk that cannot be part of the blob."""


class Missing:
    """What of one blob is not here yet. `size` None: unknown until the first chunk tells, at most `most` bytes."""

    def __init__(self, size: int | None, most: int, silence: float, asks: int) -> None:
        self.size = size
        self.arrived = 0
        """Bytes that came since this object was made."""
        self._most = most
        self._silence = silence
        self._asks_left = self._asks = asks
        self._here = bytearray()
        self._left = -1
        self._last_word: float | None = None
        self._wait = silence

    def known(self, size: int, here: bytearray) -> None:
        """The size is certain and `here` tells which chunks are on disk (1 each)."""
        self.size = size
        self._here = here
        self._left = here.count(0)

    @property
    def known_here(self) -> bool:
        """Has `known` been called?"""
        return self._left >= 0

    @property
    def complete(self) -> bool:
        return self._left == 0

    @property
    def given_up(self) -> bool:
        """So many asks without any chunk that somebody else must decide."""
        return self._asks_left < 0

    def ask(self, now: float) -> Ranges | None:
        """Inclusive ranges to ask for now; None while chunks still come or nothing is missing."""
        if self.complete or (self._last_word is not None and now - self._last_word < self._wait):
            return None
        if self._last_word is not None:
            self._wait = min(self._wait * 1.5, self._silence * _SLOWEST)
        self._last_word = now
        self._asks_left -= 1
        return ranges(self._here) if self._left >= 0 else ((0, 0),)

    def pause(self) -> None:
        """The connection went: ask at once when it is back."""
        self._last_word = None
        self._wait = self._silence
        self._asks_left = self._asks

    def check(self, number: int, size: int, length: int) -> bool:
        """Is this chunk news? Raises ChunkError if it cannot belong to the blob."""
        if self.size is not None and size != self.size:
            raise ChunkError(f"a chunk says the blob has {size} bytes, {self.size} are known")
        if not 0 < size <= self._most:
            raise ChunkError(f"a chunk says the blob has {size} bytes, at most {self._most} are allowed")
        if length != min(CHUNK_BYTES, size - number * CHUNK_BYTES):
            raise ChunkError(f"chunk {number} of {size} bytes has {length} bytes")
        return self._left < 0 or not self._here[number]

    def came(self, number: int, length: int, now: float) -> None:
        """A chunk was stored."""
        self._here[number] = 1
        self._left -= 1
        self.arrived += length
        self._last_word = now
        self._wait = self._silence
        self._asks_left = self._asks


class Budget:
    """At most `rate` bytes a second are asked for, on average; 0 means as many as there are."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._now = now
        self._left = float(CHUNK_BYTES)

    def chunks(self, now: float) -> int:
        """How many may be asked for now."""
        if not self._rate:
            return 1 << 30
        most = max(2.0 * CHUNK_BYTES, self._rate)
        self._left = min(most, self._left + self._rate * (now - self._now))
        self._now = now
        return max(0, int(self._left // CHUNK_BYTES))

    def spend(self, wanted: Ranges) -> None:
        self._left -= CHUNK_BYTES * sum(last - first + 1 for first, last in wanted)


def unpacked(chunk: Chunk, number: int) -> bytes:
    """The bytes of blob in this chunk. Raises ChunkError if they are not what was packed."""
    if not chunk.packing:
        return chunk.data
    try:
        return unpack(chunk.packing, chunk.data, min(CHUNK_BYTES, chunk.size - number * CHUNK_BYTES))
    except PackingError as error:
        raise ChunkError(f"chunk {number}: {error}") from error


def first_of(wanted: Ranges, count: int) -> Ranges:
    """The first `count` chunks of these ranges."""
    found: list[tuple[int, int]] = []
    for first, last in wanted:
        if count <= 0:
            break
        found.append((first, min(last, first + count - 1)))
        count -= last - first + 1
    return tuple(found)


def ranges(here: bytearray) -> Ranges:
    """Inclusive ranges of the zeros in `here`, at most as many as one message takes."""
    found: list[tuple[int, int]] = []
    start = here.find(0)
    while start >= 0 and len(found) < _MOST_RANGES:
        end = here.find(1, start)
        end = len(here) if end < 0 else end
        found.append((start, end - 1))
        start = here.find(0, end)
    return tuple(found)

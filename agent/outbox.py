"""PURE: what waits for the broker. Bounded; the least important leaves first."""

from __future__ import annotations

from collections import deque

import msgspec


class Letter(msgspec.Struct, frozen=True):
    """An encoded message. `kept`: worth sending late (results, reports); the rest is of no use after a while."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    kept: bool


class Outbox:
    """First in, first out, within `letters` and `size` bytes. When full, the oldest unkept letter leaves first."""

    def __init__(self, letters: int, size: int) -> None:
        self._most = letters
        self._most_bytes = size
        self._letters: deque[Letter] = deque()
        self._bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: Letter) -> None:
        self._letters.append(letter)
        self._bytes += len(letter.payload)
        while len(self._letters) > self._most or self._bytes > self._most_bytes:
            self._drop_one()

    def take(self) -> Letter | None:
        if not self._letters:
            return None
        letter = self._letters.popleft()
        self._bytes -= len(letter.payload)
        return letter

    def keep_only_kept(self) -> None:
        """The broker is gone: answers and load are stale when it returns."""
        stale = [letter for letter in self._letters if not letter.kept]
        self._letters = deque(letter for letter in self._letters if letter.kept)
        self._bytes -= sum(len(letter.payload) for letter in stale)
        self.dropped += len(stale)

    def _drop_one(self) -> None:
        victim = next((letter for letter in self._letters if not letter.kept), self._letters[0])
        self._letters.remove(victim)
        self._bytes -= len(victim.payload)
        self.dropped += 1

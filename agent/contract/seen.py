"""Tells repeats from news: brokers deliver QoS 1 messages again, and keep no order."""

from __future__ import annotations

from typing import Protocol


class Numbered(Protocol):
    """What every message carries."""

    @property
    def boot(self) -> str: ...

    @property
    def seq(self) -> int: ...


class SeenWindow:
    """Tells repeats from news by (boot id, sequence number); forgets boots and numbers beyond its bounds."""

    def __init__(self, width: int = 4096, boots: int = 4) -> None:
        self._width = width
        self._boots = boots
        self._seen: dict[str, tuple[int, set[int]]] = {}

    def is_new(self, message: Numbered) -> bool:
        """True the first time a message is shown; also False for one older than the window."""
        highest, numbers = self._seen.pop(message.boot, (0, set()))
        fresh = message.seq > highest - self._width and message.seq not in numbers
        if fresh:
            highest = max(highest, message.seq)
            numbers.add(message.seq)
            if len(numbers) > 2 * self._width:
                numbers = {n for n in numbers if n > highest - self._width}
        self._seen[message.boot] = (highest, numbers)
        while len(self._seen) > self._boots:
            del self._seen[next(iter(self._seen))]
        return fresh

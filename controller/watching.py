"""Wakes those who follow something. They look again at what there is now; nothing is queued for a slow one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Watchers:
    """Owned by the event loop. `most` may follow at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._woken: dict[str, set[asyncio.Event]] = {}
        self.closed = False
        """The controller stops: everybody who follows is to end."""

    @property
    def full(self) -> bool:
        return sum(map(len, self._woken.values())) >= self._most

    @contextmanager
    def watch(self, key: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever `key` may have changed; whoever watches clears it."""
        event = asyncio.Event()
        self._woken.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            self._woken[key].discard(event)
            if not self._woken[key]:
                del self._woken[key]

    def changed(self, key: str) -> None:
        for event in self._woken.get(key, ()):
            event.set()

    def close(self) -> None:
        self.closed = True
        for key in list(self._woken):
            self.changed(key)

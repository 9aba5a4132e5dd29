"""Keeps the pointers: changes are saved one after the other on a thread, and count only once they are on disk."""

from __future__ import annotations

from collections.abc import Callable

from agent.loop import Loop
from agent.pointers import PointerFile, Pointers

Change = Callable[[Pointers], Pointers]
Done = Callable[[Exception | None], None]


class Keeper:
    """`current` is what is on disk."""

    def __init__(self, loop: Loop, file: PointerFile) -> None:
        self._loop = loop
        self._file = file
        self._waiting: list[tuple[Change, Done]] = []
        self._saving = False
        self.current = file.load()

    @property
    def busy(self) -> bool:
        return self._saving or bool(self._waiting)

    def save(self, change: Change, done: Done) -> None:
        """Apply `change` to what is current then; `done` gets None once it is durable, or why it is not."""
        self._waiting.append((change, done))
        if not self._saving:
            self._next()

    def save_now(self, change: Change) -> None:
        """Before the loop runs, or after it: on this thread. Writes nothing where nothing changes. Raises OSError."""
        wanted = change(self.current)
        if wanted is not self.current:
            self._file.save(wanted)
            self.current = wanted

    def _next(self) -> None:
        batch, self._waiting = self._waiting, []
        wanted = self.current
        for change, _ in batch:
            wanted = change(wanted)
        self._saving = True
        if wanted is self.current:
            self._loop.call_soon(lambda: self._saved(wanted, batch, None))
        else:
            self._loop.in_thread(lambda: self._file.save(wanted), lambda result: self._saved(wanted, batch, result))

    def _saved(self, wanted: Pointers, batch: list[tuple[Change, Done]], result: Exception | None) -> None:
        self._saving = False
        if result is None:
            self.current = wanted
        for _, done in batch:
            done(result)
        if self._waiting and not self._saving:
            self._next()

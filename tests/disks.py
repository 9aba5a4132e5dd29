"""Disks that fail: from some operation on, or at exactly one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.disk import Disk, RealDisk

BIG = 1 << 30


class CrashError(Exception):
    """The power went."""


class CountingDisk(Disk):
    """The real disk; `before` is told the number of every operation that changes it, from 0, and may raise."""

    def __init__(self, before: Callable[[int], None] = lambda _: None, free: int = BIG) -> None:
        self._real = RealDisk()
        self._before = before
        self._free = free
        self.operations = 0

    def _spend(self) -> None:
        number, self.operations = self.operations, self.operations + 1
        self._before(number)

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        self._spend()
        self._real.write_at(path, offset, data)

    def write(self, path: Path, data: bytes) -> None:
        self._spend()
        self._real.write(path, data)

    def sync(self, path: Path) -> None:
        self._spend()
        self._real.sync(path)

    def rename(self, path: Path, final: Path) -> None:
        self._spend()
        self._real.rename(path, final)

    def remove(self, path: Path) -> None:
        self._spend()
        self._real.remove(path)

    def free(self, path: Path) -> int:
        del path
        return self._free


class FailingDisk(CountingDisk):
    """Works until operation number `at`; from there nothing is written any more."""

    def __init__(self, at: int, error: Exception | None = None, free: int = BIG) -> None:
        super().__init__(self._check, free)
        self._at = at
        self._error = error or CrashError()

    def _check(self, number: int) -> None:
        if number >= self._at:
            raise self._error


class StumblingDisk(CountingDisk):
    """Fails `times` operations from number `at` on, and then works again."""

    def __init__(self, at: int, error: OSError, times: int = 1) -> None:
        super().__init__(self._check)
        self._failing = range(at, at + times)
        self._error = error

    def _check(self, number: int) -> None:
        if number in self._failing:
            raise self._error

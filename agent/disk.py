"""The disk as a port: every write of blobs and state goes through it, so that a test can make one fail or be lost.

Only five operations change a disk; what has to survive a power cut is put together from them here, once.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path

from agent.contract.faults import fault


class Disk(ABC):
    """All methods raise OSError as the operating system does."""

    @abstractmethod
    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Write into a file, which is made if needed; not yet durable."""

    @abstractmethod
    def write(self, path: Path, data: bytes) -> None:
        """Write a whole file, in place of what it held; not yet durable."""

    @abstractmethod
    def sync(self, path: Path) -> None:
        """Make a file's bytes durable, or the names in a folder."""

    @abstractmethod
    def rename(self, path: Path, final: Path) -> None:
        """Give a file another name, in place of whoever had it; not yet durable."""

    @abstractmethod
    def remove(self, path: Path) -> None:
        """Remove a file, if it is there; not yet durable."""

    @abstractmethod
    def free(self, path: Path) -> int:
        """Bytes that may still be written below `path`."""

    def settle(self, path: Path, final: Path) -> None:
        """Make the file durable and give it its final name, in one step as seen after a crash."""
        self.sync(path)
        fault("blobs.before_rename")
        self.rename(path, final)
        fault("blobs.after_rename")
        self.sync(final.parent)

    def save(self, path: Path, data: bytes) -> None:
        """Replace a small file in one step as seen after a crash."""
        fresh = path.with_name(path.name + ".new")
        fault("state.write")
        self.write(fresh, data)
        self.sync(fresh)
        fault("state.before_rename")
        self.rename(fresh, path)
        fault("state.after_rename")
        self.sync(path.parent)


class RealDisk(Disk):
    """POSIX."""

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        fault("fetch.write")
        _write(path, os.O_WRONLY | os.O_CREAT, offset, data)

    def write(self, path: Path, data: bytes) -> None:
        _write(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0, data)

    def sync(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, path: Path, final: Path) -> None:
        path.replace(final)

    def remove(self, path: Path) -> None:
        fault("blobs.remove")
        path.unlink(missing_ok=True)

    def free(self, path: Path) -> int:
        return shutil.disk_usage(path).free


def _write(path: Path, flags: int, offset: int, data: bytes) -> None:
    descriptor = os.open(path, flags, 0o600)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
    finally:
        os.close(descriptor)

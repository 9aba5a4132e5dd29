"""The disk as a port: every write of the blob store goes through it, so that a test can make one fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

from agent.contract.faults import fault


class Disk(Protocol):
    """All methods raise OSError as the operating system does."""

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Write into a file, which is made if needed; not yet durable."""

    def settle(self, path: Path, final: Path) -> None:
        """Make the file durable and give it its final name, in one step as seen after a crash."""

    def save(self, path: Path, data: bytes) -> None:
        """Replace a small file in one step as seen after a crash."""

    def free(self, path: Path) -> int:
        """Bytes that may still be written below `path`."""


class RealDisk:
    """POSIX: write, fsync, rename, fsync the folder."""

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        fault("fetch.write")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
        finally:
            os.close(descriptor)

    def settle(self, path: Path, final: Path) -> None:
        _sync(path)
        fault("blobs.before_rename")
        path.replace(final)
        fault("blobs.after_rename")
        _sync(final.parent)

    def save(self, path: Path, data: bytes) -> None:
        fresh = path.with_name(path.name + ".new")
        fault("state.write")
        fresh.write_bytes(data)
        _sync(fresh)
        fault("state.before_rename")
        fresh.replace(path)
        fault("state.after_rename")
        _sync(path.parent)

    def free(self, path: Path) -> int:
        return shutil.disk_usage(path).free


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

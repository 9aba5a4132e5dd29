"""The content-addressed store on disk: whole blobs under their digest, partial ones with a map of their chunks.

    blobs/<digest>            whole, verified when it got its name
    partial/<digest>.part     bytes so far
    partial/<digest>.map      one byte per chunk, 1 where it lies in .part

A blob gets its name only after its SHA-256 was checked and its bytes were made durable, so any crash leaves either the
whole blob or a partial one that is resumed. Whoever uses a blob hashes it again: disks change bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from agent.contract.messages import CHUNK_BYTES
from agent.disk import Disk

_READ = 1 << 20


class BlobError(Exception):
    """The store cannot take a blob; says why in words for people."""


class Blobs:
    """Not safe for threads, except `seal`, which touches only its own blob."""

    def __init__(self, folder: Path, disk: Disk, quota: int) -> None:
        self._whole = folder / "blobs"
        self._partial = folder / "partial"
        self._disk = disk
        self._quota = quota
        for path in (self._whole, self._partial):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        return self._whole / digest

    def holds(self, digest: str, size: int | None = None) -> bool:
        """Is the whole blob here (and of `size` bytes)? Its bytes are checked by whoever uses them."""
        try:
            found = self.path(digest).stat().st_size
        except FileNotFoundError:
            return False
        return size is None or found == size

    def held(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._whole) if len(entry.name) == 64)

    def touch(self, digest: str) -> None:
        """Note that a blob was used: the one unused for longest leaves first."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(digest))

    def read(self, digest: str) -> bytes:
        """The verified bytes of a small blob. A changed blob is dropped and BlobError raised."""
        content = self.path(digest).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            self.drop(digest)
            raise BlobError(f"the bytes of blob {digest[:12]} were changed on disk")
        return content

    def drop(self, digest: str) -> None:
        """Remove a blob, whole or partial."""
        for path in (self.path(digest), *self._parts(digest)):
            path.unlink(missing_ok=True)

    # -- partial blobs

    def begin(self, digest: str, size: int, keep: Collection[str]) -> bytearray:
        """Make room for a blob and return its chunk map (1 = here). Blobs not in `keep` may leave for it."""
        part, chunks = self._parts(digest)
        count = -(-size // CHUNK_BYTES)
        if chunks.exists() and part.exists() and chunks.stat().st_size == count:
            return bytearray(chunks.read_bytes())
        self.drop(digest)
        self._make_room(size, keep)
        self._disk.write_at(part, 0, b"")
        self._disk.write_at(chunks, 0, bytes(count))
        return bytearray(count)

    def write(self, digest: str, number: int, data: bytes) -> None:
        """Store one chunk: bytes first, then its mark."""
        part, chunks = self._parts(digest)
        self._disk.write_at(part, number * CHUNK_BYTES, data)
        self._disk.write_at(chunks, number, b"\1")

    def seal(self, digest: str, size: int) -> None:
        """Check the bytes and give the blob its name. Raises BlobError (and drops all of it) if they are wrong."""
        part, chunks = self._parts(digest)
        if part.stat().st_size != size or _hash(part) != digest:
            self.drop(digest)
            raise BlobError(f"what arrived for blob {digest[:12]} has another SHA-256; all of it was dropped")
        self._disk.settle(part, self.path(digest))
        chunks.unlink(missing_ok=True)

    # -- room

    def used(self) -> int:
        return sum(_bytes(entry) for folder in (self._whole, self._partial) for entry in os.scandir(folder))

    def _make_room(self, size: int, keep: Collection[str]) -> None:
        """Whole and abandoned partial blobs leave, the one unused for longest first."""
        entries = [entry for folder in (self._whole, self._partial) for entry in os.scandir(folder)]
        removable = [entry for entry in entries if entry.name.partition(".")[0] not in keep]
        removable.sort(key=lambda entry: entry.stat().st_mtime)
        while self._missing(size) > 0 and removable:
            self.drop(removable.pop(0).name.partition(".")[0])
        if (missing := self._missing(size)) > 0:
            raise BlobError(f"no room for {size} bytes: {missing} too many for the disk or the quota of {self._quota}")

    def _missing(self, size: int) -> int:
        return max(self.used() + size - self._quota, size - self._disk.free(self._whole))

    def _parts(self, digest: str) -> tuple[Path, Path]:
        return self._partial / f"{digest}.part", self._partial / f"{digest}.map"


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()


def _bytes(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_blocks * 512
    except FileNotFoundError:
        return 0

"""The content-addressed store on disk: whole blobs under their digest, partial ones with a map of their chunks.

    blobs/<digest>            whole, verified when it got its name
    partial/<digest>.part     bytes so far
    partial/<digest>.map      four bytes per chunk: its checksum where it lies in .part, 0 where it does not

A blob gets its name only after its SHA-256 was checked and its bytes were made durable, so any crash leaves either the
whole blob or a partial one that is resumed. A power cut may keep a mark and lose the chunk's bytes: then the checksums
tell which chunks are asked for again. Whoever uses a blob hashes it again: disks change bytes. The inputs of a request
or a shard are used once, soon: they get their name as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

from agent.contract.faults import fault
from agent.contract.messages import CHUNK_BYTES
from agent.disk import Disk

_log = logging.getLogger("lepta.agent.blobs")
_READ = 1 << 20
_BESIDE = 64 * 1024
"""Of a blob, at most: its map, and what lies empty in its last block."""
_MARK = struct.Struct(">I")


class BlobError(Exception):
    """The store cannot take a blob; says why in words for people."""


class WrongBytesError(BlobError):
    """What arrived is not the blob, and the disk is not to blame."""


class Blobs:
    """Not safe for threads, except `seal`, `secure` and `preserve`, which touch only their own blob."""

    def __init__(self, folder: Path, disk: Disk, quota: int, reserve: int = 0) -> None:
        """`quota`: bytes that all blobs may take. `reserve`: bytes of the disk left free for everybody else."""
        self._whole = folder / "blobs"
        self._partial = folder / "partial"
        self._disk = disk
        self._quota = quota
        self._reserve = reserve
        self._most_used = float("inf")
        """What all blobs take is not more; unknown before it was added up."""
        self._promised: dict[str, int] = {}
        """Sizes of the partial blobs begun by this object: their bytes will come."""
        for path in (self._whole, self._partial):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tidy()

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
        with contextlib.suppress(OSError):
            os.utime(self.path(digest))

    def read(self, digest: str) -> bytes:
        """The verified bytes of a small blob. A changed blob is dropped and BlobError raised."""
        content = self.path(digest).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            self.drop(digest)
            raise BlobError(f"the bytes of blob {digest[:12]} were changed on disk")
        return content

    def drop(self, digest: str) -> None:
        """Remove a blob, whole or partial. One that the disk does not let go is checked and dropped again later."""
        try:
            self._remove(digest)
        except OSError as error:
            _log.error("blob %s cannot be removed: %s; check this device's disk", digest[:12], error)

    # -- partial blobs

    def begin(self, digest: str, size: int, keep: Collection[str]) -> bytearray:
        """Make room for a blob and return which chunks are here (1 each). Blobs not in `keep` may leave for it."""
        part, chunks = self._parts(digest)
        count = -(-size // CHUNK_BYTES)
        if chunks.exists() and part.exists() and chunks.stat().st_size == count * _MARK.size:
            self._promised[digest] = size
            self._most_used = float("inf")  # It was counted as far as it had come.
            return bytearray(mark != 0 for (mark,) in _MARK.iter_unpack(chunks.read_bytes()))
        self._remove(digest)
        self._make_room(size, keep)
        self._promised[digest] = size
        self._disk.write_at(part, 0, b"")
        self._disk.write_at(chunks, 0, bytes(count * _MARK.size))
        return bytearray(count)

    def write(self, digest: str, number: int, data: bytes) -> None:
        """Store one chunk: bytes first, then its mark."""
        part, chunks = self._parts(digest)
        self._disk.write_at(part, number * CHUNK_BYTES, data)
        self._disk.write_at(chunks, number * _MARK.size, _mark_of(data))

    def secure(self, digest: str) -> None:
        """Make what is here of a partial blob durable: a power cut then costs only what comes later."""
        fault("fetch.secure")
        for path in (*self._parts(digest), self._partial):
            with contextlib.suppress(FileNotFoundError):  # It became whole, or was dropped, meanwhile.
                self._disk.sync(path)

    def seal(self, digest: str, size: int) -> None:
        """Check the bytes and give the blob its name. Raises BlobError if they are wrong: chunks that the disk lost are
        then missing again, and where it lost none, all of it was wrong and is dropped."""
        part, chunks = self._parts(digest)
        if part.stat().st_size != size or _hash(part) != digest:
            self._repair(digest)
        self._disk.settle(part, self.path(digest))
        self._promised.pop(digest, None)
        with contextlib.suppress(OSError):  # The next start tidies.
            self._disk.remove(chunks)

    def adopt(self, digest: str, size: int) -> None:
        """Name a blob that is used once, soon, as it is: a power cut may take it, and whoever uses it checks its bytes.
        Raises BlobError if it is not of this size."""
        part, chunks = self._parts(digest)
        if part.stat().st_size != size:
            self._repair(digest)
        self._disk.rename(part, self.path(digest))
        self._promised.pop(digest, None)
        with contextlib.suppress(OSError):  # The next start tidies.
            self._disk.remove(chunks)

    def preserve(self, digest: str) -> None:
        """Make a whole blob durable, however it came here."""
        for path in (self.path(digest), self._whole):
            self._disk.sync(path)

    def _repair(self, digest: str) -> NoReturn:
        """Unmark what the disk lost; raises with what was found."""
        part, chunks = self._parts(digest)
        marks = chunks.read_bytes()
        kept = b"".join(mark if mark == found else bytes(_MARK.size) for mark, found in _compare(part, marks))
        if kept == marks:
            self._remove(digest)
            raise WrongBytesError(f"what arrived for blob {digest[:12]} has another SHA-256; all of it was dropped")
        self._disk.write_at(chunks, 0, kept)
        lost = sum(mark == 0 for (mark,) in _MARK.iter_unpack(kept))
        raise BlobError(f"the disk lost {lost} chunks of blob {digest[:12]}")

    # -- room

    def used(self) -> int:
        return sum(_bytes(entry) for folder in (self._whole, self._partial) for entry in os.scandir(folder))

    def _make_room(self, size: int, keep: Collection[str]) -> None:
        """Whole and abandoned partial blobs leave, the one unused for longest first."""
        takes = size + _BESIDE
        if (
            self._most_used + takes <= self._quota
            and self._disk.free(self._whole) - self._coming() >= takes + self._reserve
        ):
            self._most_used += takes  # To look at every file for each new one would take long where there are many.
            return
        entries = [entry for folder in (self._whole, self._partial) for entry in os.scandir(folder)]
        removable = [entry for entry in entries if entry.name.partition(".")[0] not in keep]
        removable.sort(key=lambda entry: entry.stat().st_mtime)
        while self._missing(size) > 0 and removable:
            self._remove(removable.pop(0).name.partition(".")[0])
        if (missing := self._missing(size)) > 0:
            raise BlobError(
                f"no room for {size} bytes: {missing} too many for the disk or the quota of {self._quota}; "
                "raise limits.disk_mb, or make room on this device's disk"
            )
        self._most_used = self.used() + self._coming() + takes

    def _coming(self) -> int:
        """Bytes of the partial blobs begun here that are not on the disk yet."""
        return sum(max(0, promised - _size(self._parts(digest)[0])) for digest, promised in self._promised.items())

    def _missing(self, size: int) -> int:
        size += self._coming()
        return max(self.used() + size - self._quota, size + self._reserve - self._disk.free(self._whole))

    def _remove(self, digest: str) -> None:
        self._promised.pop(digest, None)
        for path in (self.path(digest), *self._parts(digest)):
            if path.exists():
                self._disk.remove(path)

    def _tidy(self) -> None:
        """A crash leaves a map whose blob has its name already."""
        for chunks in self._partial.glob("*.map"):
            if not chunks.with_suffix(".part").exists():
                with contextlib.suppress(OSError):
                    self._disk.remove(chunks)

    def _parts(self, digest: str) -> tuple[Path, Path]:
        return self._partial / f"{digest}.part", self._partial / f"{digest}.map"


def _mark_of(data: bytes) -> bytes:
    return _MARK.pack(zlib.crc32(data) or 1)


def _compare(part: Path, marks: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk's mark, and what it would be by the bytes on disk."""
    with part.open("rb") as file:
        for start in range(0, len(marks), _MARK.size):
            yield marks[start : start + _MARK.size], _mark_of(file.read(CHUNK_BYTES))


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _bytes(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_blocks * 512
    except FileNotFoundError:
        return 0

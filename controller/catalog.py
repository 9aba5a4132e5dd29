"""Content-addressed files under DATA/files: written whole, named by the SHA-256 of their bytes, never changed.

`put` makes a file durable and registers it in the store, where users of files are counted; what nobody uses is swept.
`keep` holds bytes only for their way to a device: not durable, not registered, gone once used or old.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from agent.contract.faults import fault
from agent.contract.manifest import FileRef, is_digest
from controller import reads, writes
from controller.errors import Internal, NotFound, TooLarge
from controller.passing import Passing
from controller.records import File
from controller.store import Store

P = ParamSpec("P")
T = TypeVar("T")
_CHUNK = 1024 * 1024


class CatalogError(Internal):
    """A file that cannot be written or read back."""


class Catalog:
    """Owned by the event loop. Files land in `folder`, made if needed; what an earlier crash left half written goes."""

    def __init__(
        self, folder: Path, store: Store, *, passing_bytes: int = 0, now: Callable[[], float] = time.time
    ) -> None:
        """`passing_bytes`: what `keep` may hold in memory."""
        self._folder = folder
        self._incoming = folder / "incoming"
        passing = folder / "passing"
        self._passing = Passing(passing, passing_bytes, now)
        self._store = store
        self._now = now
        # Between a file's rename and its registration no sweep may take it for unknown, and the other way round.
        self._registering = asyncio.Lock()
        try:
            for path in (self._incoming, passing):
                path.mkdir(parents=True, exist_ok=True)
            for leftover in (*self._incoming.iterdir(), *passing.iterdir()):
                leftover.unlink()
        except OSError as error:
            raise _explained(error, folder) from error

    async def put(self, stream: AsyncIterable[bytes], limit: int) -> FileRef:
        """Store what `stream` yields, at most `limit` bytes.

        Raises TooLarge as soon as there is more, CatalogError if the disk does not take it; then nothing is left.
        """
        incoming = _Incoming(self._incoming / secrets.token_hex(8), limit)
        try:
            async for block in _blocks(stream):
                await self._disk(incoming.write, block)
            return await self._adopt(incoming)
        finally:
            await asyncio.to_thread(incoming.discard)

    async def put_bytes(self, content: bytes) -> FileRef:
        """Store bytes that are in memory anyway."""

        async def once() -> AsyncIterator[bytes]:
            yield content

        return await self.put(once(), len(content))

    async def put_file(self, path: Path, limit: int) -> FileRef:
        """Store a copy of a file; raises NotFound if it is not there."""
        try:
            source = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {path}") from error
        with source:
            return await self.put(_read_blocks(source), limit)

    def keep(self, content: bytes) -> FileRef:
        """Hold bytes for their way to one more device, until they were used, at most for `Limits.blob_keep_s`. A
        restart forgets them. For any thread."""
        try:
            return self._passing.keep(content)
        except OSError as error:
            raise _explained(error, self._folder) from error

    def used(self, digest: str) -> None:
        """A device has answered for kept bytes and does not need them any more."""
        self._passing.used(digest)

    def locate(self, digest: str) -> Path | None:
        """Where the bytes lie; None if they are not here. Kept bytes get a file: raises CatalogError if the disk does
        not take it."""
        if not is_digest(digest):
            return None
        place = self._place(digest)
        if place.is_file():
            return place
        try:
            return self._passing.path(digest)
        except OSError as error:
            raise _explained(error, self._folder) from error

    def size(self, digest: str) -> int | None:
        """How many bytes there are; None if they are not here."""
        content = self._passing.content(digest)
        if content is not None:
            return len(content)
        path = self.locate(digest)
        return path.stat().st_size if path is not None else None

    def piece(self, digest: str, offset: int, length: int) -> bytes:
        """A part of the bytes; raises NotFound, CatalogError, OSError."""
        content = self._passing.content(digest)
        if content is not None:
            return content[offset : offset + length]
        descriptor = os.open(self.path(digest), os.O_RDONLY)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def is_passing(self, digest: str) -> bool:
        """Is it only here for its way to a device, by `keep`?"""
        return is_digest(digest) and not self._place(digest).is_file() and self._passing.holds(digest)

    def path(self, digest: str) -> Path:
        """Where the bytes lie; raises NotFound."""
        found = self.locate(digest)
        if found is None:
            raise NotFound(f"no file has the digest {digest[:80]}", "upload it with PUT /api/v1/files")
        return found

    def read(self, digest: str, *, verify: bool = False) -> bytes:
        """The bytes; with `verify` raises CatalogError if they changed on the disk. For small files: it blocks."""
        try:
            content = self.path(digest).read_bytes()
        except OSError as error:
            raise _explained(error, self._folder) from error
        if verify and hashlib.sha256(content).hexdigest() != digest:
            raise CatalogError(
                f"the stored file {digest[:12]} is damaged: its bytes changed on the disk", "upload or build it again"
            )
        return content

    async def sweep(self, before: float) -> int:
        """Delete files that nobody uses and that came before this time (seconds since 1970); how many went."""
        gone = await asyncio.to_thread(self._passing.sweep, before)
        for file in await self._store.read(reads.unused_files(before)):
            async with self._registering:
                (unused,) = await self._store.commit([writes.forget_unused(file.digest)])
                if unused:
                    self._place(file.digest).unlink(missing_ok=True)
                    gone += 1
        return gone

    async def _adopt(self, incoming: _Incoming) -> FileRef:
        file = await self._disk(incoming.close)
        async with self._registering:
            await self._disk(_publish, incoming.path, self._place(file.digest))
            record = File(digest=file.digest, size=file.size, created_at=self._now())
            await self._store.commit([writes.put(record)])
        return file

    async def _disk(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(act, *args, **kwargs)
        except OSError as error:
            raise _explained(error, self._folder) from error

    def _place(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest


class _Incoming:
    """A file on its way in, hashed and counted as it is written."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._size = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None

    def write(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._limit:
            raise TooLarge(f"the file has more than the allowed {self._limit:,} bytes")
        fault("catalog.write")
        self._hash.update(block)
        self._open().write(block)

    def close(self) -> FileRef:
        """Bring it to the disk."""
        file = self._open()
        file.flush()
        os.fsync(file.fileno())
        file.close()
        return FileRef(self._hash.hexdigest(), self._size)

    def discard(self) -> None:
        """Delete what was not adopted."""
        if self._file is not None:
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> BinaryIO:
        if self._file is None:
            # Unbuffered: nothing is left to flush when a full disk ends it.
            self._file = self.path.open("wb", buffering=0)
        return self._file


def _publish(temporary: Path, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    fault("catalog.before_rename")
    temporary.replace(place)
    fault("catalog.after_rename")
    for folder in (place.parent, place.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def _blocks(stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Small pieces joined: each block costs one trip to a thread."""
    waiting = bytearray()
    async for piece in stream:
        waiting += piece
        if len(waiting) >= _CHUNK:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _read_blocks(source: BinaryIO) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(source.read, _CHUNK):
        yield block


def _explained(error: OSError, folder: Path) -> CatalogError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CatalogError(f"no space left on the disk of {folder}; nothing was stored", "free some space")
    return CatalogError(
        f"the folder {folder} cannot be used: {error.strerror or error}", "check the disk and its owner"
    )

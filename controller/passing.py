"""Bytes on their way to devices: the inputs of a request or a shard, used once and soon.

They wait in memory, so that a job of many gigabytes does not go through the disk as well. What is too much for that
goes to files, which a slow device may fetch later; what a device answered for already goes first, and to no file.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.contract.manifest import FileRef, is_digest


class Passing:
    """For any thread. All methods raise OSError as the disk does."""

    def __init__(self, folder: Path, memory: int, now: Callable[[], float] = time.time) -> None:
        """`memory`: bytes that may wait there; `folder` exists and takes the rest."""
        self._folder = folder
        self._memory = memory
        self._now = now
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[bytes, float]] = {}
        """By digest, the bytes and when they came; the oldest first."""
        self._used: dict[str, tuple[bytes, float]] = {}
        """The same, of what was answered for."""
        self._held = 0

    def keep(self, content: bytes) -> FileRef:
        """Hold bytes until they were used, or are swept."""
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            self._forget(digest)
            self._waiting[digest] = (content, self._now())
            self._held += len(content)
            too_many = self._take_out()
        for name, old in too_many.items():
            self._spill(name, old)
        return FileRef(digest, len(content))

    def used(self, digest: str) -> None:
        """They were answered for: not needed any more, unless a copy of the shard is still on its way."""
        with self._lock:
            if digest in self._waiting:
                self._used[digest] = self._waiting.pop(digest)

    def content(self, digest: str) -> bytes | None:
        """What waits in memory; None where it does not."""
        found = self._waiting.get(digest) or self._used.get(digest)
        return found[0] if found is not None else None

    def holds(self, digest: str) -> bool:
        return self.content(digest) is not None or (self._folder / digest).is_file()

    def path(self, digest: str) -> Path | None:
        """A file with the bytes, made if they wait in memory; None if they are not here."""
        if not is_digest(digest):
            return None
        path = self._folder / digest
        content = self.content(digest)
        if content is not None and not path.is_file():
            self._spill(digest, content)
        return path if path.is_file() else None

    def sweep(self, before: float) -> int:
        """Forget what came before this time (seconds since 1970); how many went."""
        with self._lock:
            old = [d for held in (self._waiting, self._used) for d, (_, came) in held.items() if came < before]
            for digest in old:
                self._forget(digest)
        files = [path for path in self._folder.iterdir() if path.stat().st_mtime < before]
        for path in files:
            path.unlink(missing_ok=True)
        return len({*old, *(path.name for path in files)})

    def _take_out(self) -> dict[str, bytes]:
        """What has to leave memory and is still needed."""
        needed: dict[str, bytes] = {}
        while self._held > self._memory:
            digest = next(iter(self._used or self._waiting))
            if not self._used:
                needed[digest] = self._waiting[digest][0]
            self._forget(digest)
        return needed

    def _forget(self, digest: str) -> None:
        for held in (self._waiting, self._used):
            if digest in held:
                self._held -= len(held.pop(digest)[0])

    def _spill(self, digest: str, content: bytes) -> None:
        temporary = self._folder / f".{secrets.token_hex(8)}"
        try:
            temporary.write_bytes(content)
            os.replace(temporary, self._folder / digest)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

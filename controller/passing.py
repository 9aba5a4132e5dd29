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
from dataclasses import dataclass
from pathlib import Path

from agent.contract.manifest import FileRef, is_digest


@dataclass
class _Bytes:
    content: bytes
    came: float
    """Seconds since 1970."""
    uses: int = 0
    """Devices that have not answered for them yet."""


class Passing:
    """For any thread. All methods raise OSError as the disk does."""

    def __init__(self, folder: Path, memory: int, now: Callable[[], float] = time.time) -> None:
        """`memory`: bytes that may wait there; `folder` exists and takes the rest."""
        self._folder = folder
        self._memory = memory
        self._now = now
        self._lock = threading.Lock()
        self._waiting: dict[str, _Bytes] = {}
        """By digest, the oldest first."""
        self._used: dict[str, _Bytes] = {}
        """What was answered for by all."""
        self._held = 0

    def keep(self, content: bytes) -> FileRef:
        """Hold bytes for one more device, until it has used them or they are swept."""
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            held = self._waiting.get(digest) or self._used.pop(digest, None)
            if held is None:
                held = _Bytes(content, 0.0)
                self._held += len(content)
            held.came = self._now()
            held.uses += 1
            self._waiting[digest] = held
            too_many = self._too_many()
        for old in too_many:
            self.path(old)
            with self._lock:  # Not before: somebody may ask for it meanwhile.
                self._forget(old)
        return FileRef(digest, len(content))

    def used(self, digest: str) -> None:
        """A device has answered for them."""
        with self._lock:
            held = self._waiting.get(digest)
            if held is None:
                return
            held.uses -= 1
            if held.uses <= 0:
                self._used[digest] = self._waiting.pop(digest)

    def content(self, digest: str) -> bytes | None:
        """What waits in memory; None where it does not."""
        with self._lock:
            found = self._waiting.get(digest) or self._used.get(digest)
        return found.content if found is not None else None

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
            old = [d for group in (self._waiting, self._used) for d, held in group.items() if held.came < before]
            for digest in old:
                self._forget(digest)
        files = [path for path in self._folder.iterdir() if is_digest(path.name) and path.stat().st_mtime < before]
        for path in files:
            path.unlink(missing_ok=True)
        return len({*old, *(path.name for path in files)})

    def _too_many(self) -> list[str]:
        """What has to leave memory for files. What nobody needs any more leaves at once."""
        while self._held > self._memory and self._used:
            self._forget(next(iter(self._used)))
        over, found = self._held - self._memory, []
        for digest, held in self._waiting.items():
            if over <= 0:
                break
            over -= len(held.content)
            found.append(digest)
        return found

    def _forget(self, digest: str) -> None:
        for group in (self._waiting, self._used):
            if digest in group:
                self._held -= len(group.pop(digest).content)

    def _spill(self, digest: str, content: bytes) -> None:
        temporary = self._folder / f".{secrets.token_hex(8)}"
        try:
            temporary.write_bytes(content)
            os.replace(temporary, self._folder / digest)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
